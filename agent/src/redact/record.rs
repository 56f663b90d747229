//! A record of a ring without its secrets: the same record, with other texts.

use std::borrow::Cow;

use tellwire_ebpf::wire::Header;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{Redacted, Redactor, RuleSet};
use crate::{
    books::Books,
    events::texts::{Form, Texts, texts, with_texts},
};

impl Redactor {
    /// A record with its secrets taken out, and in its header by which rules; `None` where there are none. What is
    /// no record is left to whoever decodes it.
    pub(crate) fn record(&self, record: &[u8], books: &Books) -> Option<Vec<u8>> {
        self.0.as_ref()?;
        let (mut header, rest) = Header::read_from_prefix(record).ok()?;
        let Texts { all, program } = texts(record).ok()?;
        let mut rules = self.comm(&mut header.subject);
        let redacted = all.map(|(form, text)| {
            let redacted = self.part(form, text, program)?;
            rules.extend(redacted.rules);
            Some(redacted.bytes)
        });
        if rules == RuleSet::default() {
            return None;
        }
        for rule in rules.iter() {
            Books::add(&books.redactions, rule as usize);
        }
        header.redacted |= rules.bits();
        let mut texts = all.map(|(_, text)| Cow::Borrowed(text));
        for (text, redacted) in texts.iter_mut().zip(redacted) {
            if let Some(redacted) = redacted {
                *text = Cow::Owned(redacted);
            }
        }
        with_texts(&[header.as_bytes(), rest].concat(), &texts).ok()
    }

    fn part(&self, form: Form, text: &[u8], program: &[u8]) -> Option<Redacted> {
        match form {
            Form::Plain => self.text(text, false),
            Form::Args { cut } => self.args(text, program, cut),
            Form::Names => self.names(text),
        }
    }

    /// Redacts each name of a path.
    fn names(&self, names: &[u8]) -> Option<Redacted> {
        // Whether there is anything to do is asked of all at once.
        self.text(names, false)?;
        let mut rules = RuleSet::default();
        let redact = |name: &[u8]| match self.text(name, false) {
            Some(redacted) => {
                rules.extend(redacted.rules);
                redacted.bytes
            }
            None => name.to_vec(),
        };
        let names: Vec<Vec<u8>> = names.split(|byte| *byte == 0).map(redact).collect();
        (rules != RuleSet::default()).then(|| Redacted { bytes: names.join(&0), rules })
    }
}

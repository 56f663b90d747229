//! Numbers with a unit or a range, checked where they are read, so that an error has its place
//! in the file.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes: an integer, or text such as `"64 KiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size<const MIN: u32, const MAX: u32>(u32);

/// A number of bytes on a disk, which can be more than memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes<const MIN: u64, const MAX: u64>(u64);

/// A number of bytes that is a power of two, as the kernel wants its rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PowerOfTwo<const MIN: u32, const MAX: u32>(u32);

/// A whole number without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count<const MIN: u32, const MAX: u32>(u32);

/// A length of time: text such as `"5ms"`. The range is in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u32, const MAX: u32> Size<MIN, MAX> {
    pub(crate) const fn new(bytes: u32) -> Self {
        assert!(MIN <= bytes && bytes <= MAX);
        Self(bytes)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    fn accepts() -> String {
        format!(
            "bytes from {} to {}, such as 65536 or \"64 KiB\"",
            size_text(MIN.into()),
            size_text(MAX.into())
        )
    }
}

impl<const MIN: u64, const MAX: u64> Bytes<MIN, MAX> {
    pub(crate) const fn new(bytes: u64) -> Self {
        assert!(MIN <= bytes && bytes <= MAX);
        Self(bytes)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    fn accepts() -> String {
        format!("bytes from {} to {}, such as \"64 MiB\"", size_text(MIN), size_text(MAX))
    }
}

impl<const MIN: u32, const MAX: u32> PowerOfTwo<MIN, MAX> {
    pub(crate) const fn new(bytes: u32) -> Self {
        assert!(MIN <= bytes && bytes <= MAX && bytes.is_power_of_two());
        Self(bytes)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    fn accepts() -> String {
        format!(
            "a power of two from {} to {}, such as \"2 MiB\"",
            size_text(MIN.into()),
            size_text(MAX.into())
        )
    }
}

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    pub(crate) const fn new(count: u32) -> Self {
        assert!(MIN <= count && count <= MAX);
        Self(count)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    fn accepts() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }
}

impl<const MIN: u64, const MAX: u64> Time<MIN, MAX> {
    pub(crate) const fn from_millis(millis: u64) -> Self {
        assert!(MIN <= millis && millis <= MAX);
        Self(Duration::from_millis(millis))
    }

    pub(crate) const fn get(self) -> Duration {
        self.0
    }

    fn accepts() -> String {
        let text = |millis| duration_text(Duration::from_millis(millis));
        format!("a time from \"{}\" to \"{}\", such as \"{}\"", text(MIN), text(MAX), text(MAX / 2))
    }
}

/// `"500ms"`, `"30s"`, `"1m 30s"`: a length of time with its unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let duration: SignedDuration = text.parse().ok()?;
    Duration::try_from(duration).ok()
}

fn duration_text(duration: Duration) -> String {
    format!("{:#}", SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX))
}

/// `65536`, `"65536"`, `"64 KiB"`, `"64KiB"`. No decimal units: what they stand for is disputed.
fn size(raw: &Raw<'_>) -> Option<u64> {
    let text = match *raw {
        Raw::Number(number) => return Some(number),
        Raw::Text(text) => text.trim(),
    };
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)))
        .unwrap_or((text, 1));
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// The largest unit that leaves a whole number.
fn size_text(bytes: u64) -> String {
    match UNITS.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{} {unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// What stands in the file.
pub(super) enum Raw<'a> {
    Number(u64),
    Text(&'a str),
}

/// Reads a number or text that `accept` takes; `accepts` says what that is, in errors and in the
/// documentation alike.
pub(super) fn read<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    accepts: String,
    accept: impl Fn(Raw<'_>) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Reader { accepts, accept })
}

struct Reader<F> {
    accepts: String,
    accept: F,
}

impl<T, F: Fn(Raw<'_>) -> Option<T>> Visitor<'_> for Reader<F> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.accepts)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        u64::try_from(number)
            .ok()
            .and_then(|number| (self.accept)(Raw::Number(number)))
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.accept)(Raw::Number(number))
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.accept)(Raw::Text(text)).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// The schema of a value: what it accepts, for the documentation of the key that has it, and what of that JSON Schema
/// can say.
pub(super) fn schema(accepts: &str, rules: Value) -> Schema {
    let mut schema = json_schema!({ "accepts": accepts });
    if let Value::Object(rules) = rules {
        schema.ensure_object().extend(rules);
    }
    schema
}

/// A number of bytes, as a number or with a unit.
fn bytes_rules(min: u64, max: u64) -> Value {
    json!({ "type": ["integer", "string"], "minimum": min, "maximum": max, "pattern": "^ *[0-9]+ *([KMGT]iB)? *$" })
}

fn count_rules(min: u64, max: u64) -> Value {
    json!({ "type": "integer", "minimum": min, "maximum": max })
}

fn time_rules(_: u64, _: u64) -> Value {
    json!({ "type": "string" })
}

/// How each kind of number is read and written.
macro_rules! number {
    ($name:ident<$range:ty>, $read:expr, $write:expr, $rules:expr) => {
        impl<'de, const MIN: $range, const MAX: $range> Deserialize<'de> for $name<MIN, MAX> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read(deserializer, Self::accepts(), |raw| $read(&raw, MIN, MAX).map(Self))
            }
        }

        impl<const MIN: $range, const MAX: $range> Serialize for $name<MIN, MAX> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $write(self.0, serializer)
            }
        }

        impl<const MIN: $range, const MAX: $range> JsonSchema for $name<MIN, MAX> {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schema(&Self::accepts(), $rules(MIN.into(), MAX.into()))
            }
        }
    };
}

number!(Size<u32>, read_size, write_size, bytes_rules);
number!(Bytes<u64>, read_bytes, write_bytes, bytes_rules);
number!(PowerOfTwo<u32>, read_power_of_two, write_size, bytes_rules);
number!(Count<u32>, read_count, write_count, count_rules);
number!(Time<u64>, read_time, write_time, time_rules);

fn read_size(raw: &Raw<'_>, min: u32, max: u32) -> Option<u32> {
    size(raw).and_then(|bytes| u32::try_from(bytes).ok()).filter(|bytes| (min..=max).contains(bytes))
}

fn read_bytes(raw: &Raw<'_>, min: u64, max: u64) -> Option<u64> {
    size(raw).filter(|bytes| (min..=max).contains(bytes))
}

fn read_power_of_two(raw: &Raw<'_>, min: u32, max: u32) -> Option<u32> {
    read_size(raw, min, max).filter(|bytes| bytes.is_power_of_two())
}

fn read_count(raw: &Raw<'_>, min: u32, max: u32) -> Option<u32> {
    match *raw {
        Raw::Number(number) => u32::try_from(number).ok().filter(|count| (min..=max).contains(count)),
        Raw::Text(_) => None,
    }
}

fn read_time(raw: &Raw<'_>, min: u64, max: u64) -> Option<Duration> {
    match *raw {
        Raw::Text(text) => duration(text)
            .filter(|time| (Duration::from_millis(min)..=Duration::from_millis(max)).contains(time)),
        Raw::Number(_) => None,
    }
}

fn write_size<S: Serializer>(bytes: u32, serializer: S) -> Result<S::Ok, S::Error> {
    write_bytes(bytes.into(), serializer)
}

fn write_bytes<S: Serializer>(bytes: u64, serializer: S) -> Result<S::Ok, S::Error> {
    if bytes != 0 && bytes.is_multiple_of(1024) {
        serializer.serialize_str(&size_text(bytes))
    } else {
        serializer.serialize_u64(bytes)
    }
}

fn write_count<S: Serializer>(count: u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(count)
}

fn write_time<S: Serializer>(time: Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration_text(time))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Raw, duration, duration_text, read_power_of_two, read_size, size, size_text};

    #[test]
    fn sizes_are_integers_or_have_a_binary_unit() {
        for (text, bytes) in
            [("4096", 4096), ("64 KiB", 65536), ("64KiB", 65536), (" 2 MiB ", 2 << 20), ("1 GiB", 1 << 30)]
        {
            assert_eq!(size(&Raw::Text(text)), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5 MiB", "64 KB", "64 kib", "99999999 TiB", "1 MiB MiB"] {
            assert_eq!(size(&Raw::Text(text)), None, "{text}");
        }
        assert_eq!(read_size(&Raw::Number(1 << 32), 0, u32::MAX), None);
    }

    #[test]
    fn a_size_is_written_as_it_can_be_read() {
        for bytes in [0, 1, 1000, 1024, 1536, 65536, 3 << 20, 1 << 30, 1 << 44] {
            assert_eq!(size(&Raw::Text(&size_text(bytes))), Some(bytes));
        }
        assert_eq!(size_text(3 << 20), "3 MiB");
    }

    #[test]
    fn ranges_include_their_ends_and_rings_are_powers_of_two() {
        let read = |number| read_size(&Raw::Number(number), 256, 512);
        assert_eq!([255, 256, 512, 513].map(read), [None, Some(256), Some(512), None]);
        let read = |number| read_power_of_two(&Raw::Number(number), 4096, 1 << 20);
        assert_eq!([4096, 5000, 1 << 20].map(read), [Some(4096), None, Some(1 << 20)]);
    }

    #[test]
    fn durations_have_a_unit_and_are_not_negative() {
        assert_eq!(duration("5ms"), Some(Duration::from_millis(5)));
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Some(Duration::from_mins(5)));
        assert_eq!(duration("1m 30s"), Some(Duration::from_secs(90)));
        for text in ["", "30", "-5s", "5 parsecs", "1s ago"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_is_written_as_it_can_be_read() {
        for millis in [0, 1, 999, 1000, 90_500, 3_600_000] {
            let time = Duration::from_millis(millis);
            assert_eq!(duration(&duration_text(time)), Some(time), "{}", duration_text(time));
        }
        assert_eq!(duration_text(Duration::from_millis(5)), "5ms");
        assert_eq!(duration_text(Duration::from_secs(10)), "10s");
    }
}

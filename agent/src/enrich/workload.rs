//! Which workload a pod belongs to, by its name and labels: without a call to anybody.
//!
//! Controllers name their pods in ways that can be taken apart again. The random parts are written in the alphabet
//! of `SafeEncodeString`, which has no vowels (`k8s.io/apimachinery` v0.34, `pkg/util/rand/rand.go`), so that an
//! ordinary word is not taken for one.

use super::names::PodNames;

/// Letters and digits of `SafeEncodeString` and of the random end of a generated name.
const ALPHABET: &str = "bcdfghjklmnpqrstvwxz2456789";

/// The random end of a generated name, `randomLength` of `k8s.io/apiserver` v0.34, `pkg/storage/names/generate.go`.
const SUFFIX: usize = 5;

/// The label that names an application, by the conventions of Kubernetes.
pub(crate) const APPLICATION: &str = "app.kubernetes.io/name";

/// The workload of a pod. `label` gives the value of one of the pod's labels.
pub(crate) fn of_pod<'a>(pod: &'a PodNames, label: impl Fn(&str) -> Option<&'a str>) -> &'a str {
    let name = &*pod.name;
    if let Some(hash) = label("pod-template-hash") {
        // A Deployment's ReplicaSet: name-hash-random.
        let base = strip_suffix(name).and_then(|base| base.strip_suffix(hash)?.strip_suffix('-'));
        return base.unwrap_or(name);
    }
    if label("statefulset.kubernetes.io/pod-name").is_some() {
        return strip_ordinal(name).unwrap_or(name);
    }
    if let Some(job) = label("batch.kubernetes.io/job-name").or_else(|| label("job-name")) {
        return strip_schedule(job).unwrap_or(job);
    }
    if label("controller-revision-hash").is_some() {
        // A DaemonSet; StatefulSets, which have it too, were told above.
        return strip_suffix(name).unwrap_or(name);
    }
    by_name(name)
}

/// The same by the name alone.
fn by_name(name: &str) -> &str {
    let Some(base) = strip_suffix(name) else { return strip_ordinal(name).unwrap_or(name) };
    strip_hash(base).or_else(|| strip_schedule(base)).unwrap_or(base)
}

/// Takes off `-xxxxx`.
fn strip_suffix(name: &str) -> Option<&str> {
    let (base, suffix) = name.rsplit_once('-')?;
    (suffix.len() == SUFFIX && is_random(suffix) && !base.is_empty()).then_some(base)
}

/// Takes off a replica set's hash: a number of 32 bits in decimal digits, each written as a letter of the alphabet.
fn strip_hash(name: &str) -> Option<&str> {
    let (base, hash) = name.rsplit_once('-')?;
    let is_hash = (8..=10).contains(&hash.len()) && is_random(hash);
    // Of a CronJob's minutes since 1970 all digits would be of the alphabet only by chance.
    (is_hash && !hash.bytes().all(|byte| byte.is_ascii_digit()) && !base.is_empty()).then_some(base)
}

/// Takes off a cron job's time: minutes since 1970, or seconds before Kubernetes 1.21.
fn strip_schedule(name: &str) -> Option<&str> {
    let (base, time) = name.rsplit_once('-')?;
    let is_time = matches!(time.len(), 8 | 10) && time.bytes().all(|byte| byte.is_ascii_digit());
    (is_time && !base.is_empty()).then_some(base)
}

/// Takes off the ordinal in a stateful set.
fn strip_ordinal(name: &str) -> Option<&str> {
    let (base, ordinal) = name.rsplit_once('-')?;
    let is_ordinal = (1..=4).contains(&ordinal.len()) && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    (is_ordinal && !base.is_empty()).then_some(base)
}

fn is_random(text: &str) -> bool {
    text.chars().all(|letter| ALPHABET.contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, labels: &[(&str, &'static str)]) -> String {
        let pod = PodNames { namespace: "shop".into(), name: name.into(), uid: "1".into() };
        let label = |key: &str| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        of_pod(&pod, label).to_owned()
    }

    #[test]
    fn names_alone_tell_the_controller() {
        for (pod, expected) in [
            ("cartservice-7d5c9b8f6d-x2v9k", "cartservice"),
            ("frontend-5f8d9c6b4-zq7wn", "frontend"),
            ("redis-master-0", "redis-master"),
            ("kafka-12", "kafka"),
            ("node-exporter-8x7kd", "node-exporter"),
            ("backup-29012345-k8x2p", "backup"),
            ("backup-1717171717-k8x2p", "backup"),
            ("migrate-w9k4r", "migrate"),
            ("kube-apiserver-minikube", "kube-apiserver-minikube"),
            // A word is no random end, since it has vowels.
            ("my-redis-cache", "my-redis-cache"),
            ("etcd-minikube", "etcd-minikube"),
            ("web", "web"),
            ("-x2v9k", "-x2v9k"),
            ("", ""),
        ] {
            assert_eq!(workload(pod, &[]), expected, "{pod}");
        }
    }

    #[test]
    fn labels_of_controllers_decide_where_there_are_some() {
        for (pod, labels, expected) in [
            // The hash is shorter than a pattern would dare to take.
            ("api-6f7-x2v9k", &[("pod-template-hash", "6f7")] as &[_], "api"),
            // A StatefulSet of a name that ends like a Deployment's.
            ("db-7d5c9b8f6d-x2v9k-0", &[("statefulset.kubernetes.io/pod-name", "x")], "db-7d5c9b8f6d-x2v9k"),
            ("agent-2-bcdfg", &[("controller-revision-hash", "5d9")], "agent-2"),
            ("report-29012345-k8x2p", &[("batch.kubernetes.io/job-name", "report-29012345")], "report"),
            ("once-k8x2p", &[("job-name", "once")], "once"),
            ("odd", &[("pod-template-hash", "6f7")], "odd"),
        ] {
            assert_eq!(workload(pod, labels), expected, "{pod}");
        }
    }
}

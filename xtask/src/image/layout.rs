//! The files of an image: <https://github.com/opencontainers/image-spec> v1.1 and `docker save`.
//!
//! Written as JSON values whose keys keep the order in which they stand here: the structs of oci-spec (0.10) hold labels
//! in a `HashMap`, which gives another order, and so another digest, at every run.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    archive::{Entry, Folders, gzip, sha256, tar},
    build::Arch,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub(super) struct Image {
    /// Name and tag.
    pub(super) reference: String,
    /// In the order in which they are written.
    pub(super) labels: Vec<(String, String)>,
    /// Seconds since the epoch; without it the image does not say.
    pub(super) created: Option<u64>,
    pub(super) platforms: Vec<Platform>,
}

pub(super) struct Platform {
    pub(super) arch: Arch,
    /// A tar.
    pub(super) layer: Vec<u8>,
}

impl Image {
    /// Writes the layout (`oci/`), the same as one file (`tellwire-oci.tar`) and an archive for each platform
    /// (`tellwire-amd64.tar`). Gives the digest of the image, which is that of all its platforms.
    pub(super) fn write(&self, folder: &Path) -> Result<String> {
        let mut blobs = Blobs::default();
        let mut manifests = Vec::new();
        let mut archives = Vec::new();
        for platform in &self.platforms {
            let config = self.config(platform)?.to_string().into_bytes();
            archives.push((platform.arch, self.docker_archive(&config, platform)?));
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": blobs.add(CONFIG, config),
                "layers": [blobs.add(LAYER, gzip(&platform.layer)?)],
                "annotations": self.labels(),
            });
            let mut descriptor = blobs.add(MANIFEST, manifest.to_string().into_bytes());
            put(&mut descriptor, "platform", json!({ "architecture": platform.arch.go(), "os": "linux" }));
            manifests.push(descriptor);
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": manifests,
            "annotations": self.labels(),
        });
        let mut image = blobs.add(INDEX, index.to_string().into_bytes());
        let digest = image.get("digest").and_then(Value::as_str).context("a descriptor without a digest")?;
        let digest = digest.to_owned();
        let tag = self.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let annotations = json!({
            "org.opencontainers.image.ref.name": tag,
            // containerd names an image that it imports by this one.
            "io.containerd.image.name": self.reference,
        });
        put(&mut image, "annotations", annotations);
        let mut files = blobs.0;
        let layout = json!({ "imageLayoutVersion": "1.0.0" });
        files.push(Entry::new("oci-layout", 0o644, layout.to_string()));
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [image] });
        files.push(Entry::new("index.json", 0o644, index.to_string()));

        let layout = folder.join("oci");
        if layout.exists() {
            fs::remove_dir_all(&layout).with_context(|| format!("removing {}", layout.display()))?;
        }
        for Entry { path, bytes, .. } in &files {
            write(&layout.join(path), bytes)?;
        }
        write(&folder.join("tellwire-oci.tar"), &tar(files, Folders::Plain, self.created.unwrap_or(0))?)?;
        for (arch, bytes) in archives {
            write(&folder.join(format!("tellwire-{}.tar", arch.go())), &bytes)?;
        }
        write(&folder.join("digest"), format!("{digest}\n").as_bytes())?;
        Ok(digest)
    }

    fn labels(&self) -> Value {
        let labels: Map<String, Value> =
            self.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        labels.into()
    }

    fn config(&self, platform: &Platform) -> Result<Value> {
        let mut config = json!({
            "architecture": platform.arch.go(),
            "os": "linux",
            "config": {
                // Of `run` and everything else: `docker run IMAGE check`.
                "Entrypoint": ["/tellwire"],
                "Cmd": ["run"],
                "Env": ["PATH=/"],
                "WorkingDir": "/",
                // Programs are loaded into the kernel as root or with capabilities; there is no /etc/passwd.
                "User": "0:0",
                "ExposedPorts": { "9477/tcp": {} },
                "StopSignal": "SIGTERM",
                "Labels": self.labels(),
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&platform.layer))] },
        });
        if let Some(created) = self.created {
            put(&mut config, "created", rfc3339(created)?.into());
        }
        Ok(config)
    }

    /// As `docker save` wrote it before it knew of OCI layouts: every docker reads it.
    fn docker_archive(&self, config: &[u8], platform: &Platform) -> Result<Vec<u8>> {
        let config_name = format!("{}.json", sha256(config));
        let layer_name = format!("{}/layer.tar", sha256(&platform.layer));
        let manifest =
            json!([{ "Config": config_name, "RepoTags": [self.reference], "Layers": [layer_name] }]);
        let files = vec![
            Entry::new("manifest.json", 0o644, manifest.to_string()),
            Entry::new(config_name, 0o644, config),
            Entry::new(layer_name, 0o644, platform.layer.clone()),
        ];
        tar(files, Folders::Plain, self.created.unwrap_or(0))
    }
}

/// Adds a member to an object.
fn put(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(name.to_owned(), value);
    }
}

#[derive(Default)]
struct Blobs(Vec<Entry>);

impl Blobs {
    /// Keeps a blob; gives its descriptor.
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let sum = sha256(&bytes);
        let descriptor =
            json!({ "mediaType": media_type, "digest": format!("sha256:{sum}"), "size": bytes.len() });
        let path = format!("blobs/sha256/{sum}");
        if self.0.iter().all(|entry| entry.path != path) {
            self.0.push(Entry::new(path, 0o644, bytes));
        }
        descriptor
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// A time in UTC.
fn rfc3339(seconds: u64) -> Result<String> {
    let seconds = i64::try_from(seconds).context("SOURCE_DATE_EPOCH is out of range")?;
    Ok(Timestamp::from_second(seconds).context("SOURCE_DATE_EPOCH is out of range")?.to_string())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use serde_json::Value;

    use super::{Arch, Entry, Folders, Image, Platform, rfc3339, sha256, tar};

    fn image(arches: &[Arch]) -> Image {
        let platform = |arch: &Arch| {
            let files = vec![Entry::new("tellwire", 0o755, arch.go())];
            Platform { arch: *arch, layer: tar(files, Folders::None, 0).unwrap() }
        };
        Image {
            reference: "localhost/tellwire:1".into(),
            labels: ["a", "b", "c", "d"].map(|name| (name.to_owned(), "value".to_owned())).into(),
            created: None,
            platforms: arches.iter().map(platform).collect(),
        }
    }

    fn sums(folder: &Path, below: &Path, into: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sums(folder, &path, into);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                into.insert(name, sha256(&fs::read(path).unwrap()));
            }
        }
    }

    fn json(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn the_same_input_gives_the_same_files_byte_by_byte() {
        let written = || {
            let folder = tempfile::tempdir().unwrap();
            let digest = image(&Arch::ALL).write(folder.path()).unwrap();
            let mut files = BTreeMap::new();
            sums(folder.path(), folder.path(), &mut files);
            (digest, files)
        };
        let (digest, files) = written();
        assert_eq!((digest.clone(), files.clone()), written());
        for name in ["tellwire-oci.tar", "tellwire-amd64.tar", "tellwire-arm64.tar", "oci/index.json"] {
            assert!(files.contains_key(name), "{name} of {files:?}");
        }
        assert!(digest.starts_with("sha256:") && digest.len() == 71);
    }

    #[test]
    fn the_layout_leads_to_both_platforms_and_every_blob_is_named_by_its_sum() {
        let folder = tempfile::tempdir().unwrap();
        let digest = image(&Arch::ALL).write(folder.path()).unwrap();
        let blobs = folder.path().join("oci/blobs/sha256");
        for blob in fs::read_dir(&blobs).unwrap() {
            let path = blob.unwrap().path();
            assert_eq!(path.file_name().unwrap().to_str().unwrap(), sha256(&fs::read(&path).unwrap()));
        }
        let blob = |descriptor: &Value| {
            let sum = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let path = blobs.join(sum);
            assert_eq!(descriptor["size"], fs::metadata(&path).unwrap().len());
            path
        };
        let top = json(&folder.path().join("oci/index.json"));
        assert_eq!(top["manifests"][0]["digest"], digest);
        let index = json(&blob(&top["manifests"][0]));
        for (number, arch) in ["amd64", "arm64"].into_iter().enumerate() {
            let descriptor = &index["manifests"][number];
            assert_eq!(descriptor["platform"]["architecture"], arch);
            let manifest = json(&blob(descriptor));
            let config = json(&blob(&manifest["config"]));
            assert_eq!(config["architecture"], arch);
            assert_eq!(config["config"]["Entrypoint"][0], "/tellwire");
            blob(&manifest["layers"][0]);
        }
    }

    #[test]
    fn another_binary_gives_another_digest() {
        let digest = |arch| {
            let folder = tempfile::tempdir().unwrap();
            image(&[arch]).write(folder.path()).unwrap()
        };
        assert_ne!(digest(Arch::X86_64), digest(Arch::Aarch64));
    }

    #[test]
    fn the_time_is_said_where_it_is_asked_for() {
        assert_eq!(rfc3339(1_709_251_199).unwrap(), "2024-02-29T23:59:59Z");
    }
}

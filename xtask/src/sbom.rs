//! The bill of materials of the shipped binary: `CycloneDX` 1.5 in JSON, from cargo's own graph and the lock file.
//!
//! It lists what is linked into the agent and into its kernel programs, for one machine type, and says nothing that
//! differs between two runs: no serial number and no time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use xshell::{Shell, cmd};

use crate::{build::Arch, setup};

/// As text, with a line feed at its end.
pub(crate) fn of(sh: &Shell, arch: Arch) -> Result<String> {
    let target = arch.musl();
    let agent = cmd!(sh, "cargo metadata --format-version 1 --locked --filter-platform {target}");
    let agent: Value = serde_json::from_str(&agent.quiet().read()?)?;
    // rustc has no target description at hand for `--filter-platform` of BPF; the two crates have the same dependencies
    // for every target.
    let all: Value =
        serde_json::from_str(&cmd!(sh, "cargo metadata --format-version 1 --locked").quiet().read()?)?;
    let mut graph = Graph::of(&agent, "tellwire")?;
    for root in ["aya-ebpf", "aya-log-ebpf"] {
        graph.join(Graph::of(&all, root)?);
    }
    let root = setup::root()?;
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("reading Cargo.lock")?;
    let toolchain = setup::rustc_says(sh, "release")?;
    let bill = bill(&graph, &checksums(&lock)?, &toolchain, arch);
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

/// Packages by name and version, and what each is linked with.
#[derive(Default)]
struct Graph {
    packages: BTreeMap<Id, Package>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    name: String,
    version: String,
}

struct Package {
    license: Option<String>,
    description: Option<String>,
    needs: BTreeSet<Id>,
}

impl Id {
    /// <https://github.com/package-url/purl-spec>, type `cargo`.
    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version.replace('+', "%2B"))
    }
}

impl Graph {
    /// What a package is linked with, itself included. What only builds or tests it is left out.
    fn of(metadata: &Value, name: &str) -> Result<Self> {
        let packages = by_id(metadata.get("packages"));
        let nodes = by_id(metadata.pointer("/resolve/nodes"));
        let of_name = |(_, package): &(&&str, &&Value)| text(package, "name").as_deref() == Some(name);
        let (root, _) =
            packages.iter().find(of_name).with_context(|| format!("cargo knows no package {name}"))?;
        let mut graph = Self::default();
        let mut open = vec![*root];
        let mut seen = BTreeSet::from([*root]);
        while let Some(id) = open.pop() {
            let package =
                packages.get(id).with_context(|| format!("cargo names {id} and does not tell it"))?;
            let linked: Vec<&str> = nodes
                .get(id)
                .and_then(|node| node.get("deps")?.as_array())
                .into_iter()
                .flatten()
                .filter(|dependency| is_linked(dependency))
                .filter_map(|dependency| dependency.get("pkg")?.as_str())
                .collect();
            open.extend(linked.iter().filter(|id| seen.insert(**id)));
            let needs = linked.iter().filter_map(|id| identity(packages.get(id)?)).collect();
            let known = Package {
                license: text(package, "license"),
                description: text(package, "description"),
                needs,
            };
            graph.packages.insert(identity(package).context("a package without a name")?, known);
        }
        Ok(graph)
    }

    fn join(&mut self, other: Self) {
        for (id, package) in other.packages {
            self.packages.entry(id).or_insert(package);
        }
    }
}

fn by_id(list: Option<&Value>) -> BTreeMap<&str, &Value> {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(|entry| Some((entry.get("id")?.as_str()?, entry))).collect()
}

fn identity(package: &Value) -> Option<Id> {
    Some(Id { name: text(package, "name")?, version: text(package, "version")? })
}

fn text(value: &Value, key: &str) -> Option<String> {
    Some(value.get(key)?.as_str()?.trim().to_owned())
}

/// Cargo gives a dependency's kinds; the one without a name is linked.
fn is_linked(dependency: &Value) -> bool {
    let kinds = dependency.get("dep_kinds").and_then(Value::as_array).into_iter().flatten();
    kinds.into_iter().any(|kind| kind.get("kind").is_some_and(Value::is_null))
}

/// Of the packages that come from a registry: SHA-256 in hex digits.
fn checksums(lock: &str) -> Result<BTreeMap<Id, String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let sums = packages.filter_map(|package| {
        let text = |key| Some(package.get(key)?.as_str()?.to_owned());
        Some((Id { name: text("name")?, version: text("version")? }, text("checksum")?))
    });
    Ok(sums.collect())
}

fn bill(graph: &Graph, sums: &BTreeMap<Id, String>, toolchain: &str, arch: Arch) -> Value {
    let component = |id: &Id, package: &Package, kind: &str| {
        let mut component = Map::new();
        component.insert("type".into(), kind.into());
        component.insert("bom-ref".into(), id.purl().into());
        component.insert("name".into(), id.name.clone().into());
        component.insert("version".into(), id.version.clone().into());
        if let Some(description) = &package.description {
            component.insert("description".into(), description.clone().into());
        }
        if let Some(sum) = sums.get(id) {
            component.insert("hashes".into(), json!([{ "alg": "SHA-256", "content": sum }]));
        }
        if let Some(license) = &package.license {
            // Older crates write `MIT/Apache-2.0`.
            let expression = license.replace('/', " OR ");
            component.insert("licenses".into(), json!([{ "expression": expression }]));
        }
        component.insert("purl".into(), id.purl().into());
        Value::from(component)
    };
    let of_agent = |id: &Id| id.name == "tellwire";
    let agent = graph.packages.iter().find(|(id, _)| of_agent(id));
    let agent = agent.map(|(id, package)| component(id, package, "application"));
    let others = graph.packages.iter().filter(|(id, _)| !of_agent(id));
    let mut components: Vec<Value> = others.map(|(id, package)| component(id, package, "library")).collect();
    // Linked into every program, and in no lock file.
    components.push(json!({
        "type": "library",
        "bom-ref": format!("rust-std@{toolchain}"),
        "name": "rust-std",
        "version": toolchain,
        "description": "the standard library of Rust, with musl",
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    }));
    let dependencies: Vec<Value> = graph
        .packages
        .iter()
        .map(|(id, package)| {
            let needs: Vec<String> = package.needs.iter().map(Id::purl).collect();
            json!({ "ref": id.purl(), "dependsOn": needs })
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": agent,
            "properties": [{ "name": "tellwire:target", "value": arch.musl() }],
        },
        "components": components,
        "dependencies": dependencies,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Arch, Graph, bill, checksums};

    fn metadata() -> serde_json::Value {
        json!({
            "packages": [
                { "id": "a", "name": "tellwire", "version": "1.0.0", "license": "MIT OR Apache-2.0" },
                { "id": "b", "name": "linked", "version": "2.0.0+x", "license": "MIT/Apache-2.0" },
                { "id": "c", "name": "builds", "version": "3.0.0", "license": "MIT" },
            ],
            "resolve": { "nodes": [
                { "id": "a", "deps": [
                    { "pkg": "b", "dep_kinds": [{ "kind": null }] },
                    { "pkg": "c", "dep_kinds": [{ "kind": "build" }, { "kind": "dev" }] },
                ] },
                { "id": "b", "deps": [] },
            ] },
        })
    }

    #[test]
    fn what_is_linked_is_listed_with_its_sum_and_what_only_builds_is_not() {
        let graph = Graph::of(&metadata(), "tellwire").unwrap();
        let lock = "[[package]]\nname = 'linked'\nversion = '2.0.0+x'\nchecksum = 'ab12'\n";
        let bill = bill(&graph, &checksums(lock).unwrap(), "1.95.0", Arch::Aarch64);
        let names: Vec<_> =
            bill["components"].as_array().unwrap().iter().map(|component| &component["name"]).collect();
        assert_eq!(names, ["linked", "rust-std"]);
        let linked = &bill["components"][0];
        assert_eq!(linked["purl"], "pkg:cargo/linked@2.0.0%2Bx");
        assert_eq!(linked["hashes"][0]["content"], "ab12");
        assert_eq!(linked["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["metadata"]["component"]["name"], "tellwire");
        assert_eq!(bill["dependencies"][1]["dependsOn"], json!([linked["purl"]]));
    }
}

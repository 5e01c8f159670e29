//! Volumes of a pod: directories of this machine, with the modes and the group that Kubernetes would give them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::objects::Objects;
use crate::helm::{entries, items};

/// Makes the volumes of a pod's spec below `dir`, those that outlive it below `claims`: where each lies, by name.
pub(super) fn make(
    objects: &Objects,
    spec: &Value,
    dir: &Path,
    claims: &Path,
    claimed: &BTreeMap<String, String>,
) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let group = spec["securityContext"]["fsGroup"].as_u64().map(u32::try_from).transpose()?;
    let mut made = BTreeMap::new();
    for volume in items(&spec["volumes"]) {
        let name = volume["name"].as_str().context("a volume without a name")?;
        let place = dir.join(name);
        let kinds: Vec<&String> = entries(volume).map(|(key, _)| key).filter(|key| *key != "name").collect();
        match kinds[..] {
            [kind] if kind == "emptyDir" => directory(&place, group)?,
            [kind] if kind == "persistentVolumeClaim" => {
                let claim = volume[kind]["claimName"].as_str().context("a volume without a claim")?;
                if !objects.has("PersistentVolumeClaim", claim) {
                    bail!("there is no PersistentVolumeClaim {claim}");
                }
                directory(&claims.join(claim), group)?;
                made.insert(name.to_owned(), claims.join(claim));
                continue;
            }
            [kind] if kind == "projected" => {
                let mode = mode(&volume[kind]["defaultMode"], 0o644)?;
                let mut files = Vec::new();
                for source in items(&volume[kind]["sources"]) {
                    files.extend(files_of(objects, source, mode)?);
                }
                write(&place, &files, group)?;
            }
            [kind] if kind == "secret" || kind == "configMap" => {
                let mode = mode(&volume[kind]["defaultMode"], 0o644)?;
                write(&place, &files_of(objects, volume, mode)?, group)?;
            }
            _ => bail!("volume {name}: nothing here knows {kinds:?}"),
        }
        made.insert(name.to_owned(), place);
    }
    for (name, claim) in claimed {
        directory(&claims.join(claim), group)?;
        made.insert(name.clone(), claims.join(claim));
    }
    Ok(made)
}

fn mode(value: &Value, otherwise: u32) -> anyhow::Result<u32> {
    value.as_u64().map_or(Ok(otherwise), |mode| Ok(u32::try_from(mode)?))
}

/// An empty directory that everybody may write, or what is in it already: all of it belongs to the group.
fn directory(place: &Path, group: Option<u32>) -> anyhow::Result<()> {
    if !place.is_dir() {
        fs::create_dir_all(place)?;
        fs::set_permissions(place, fs::Permissions::from_mode(0o777))?;
    }
    let Some(group) = group else { return Ok(()) };
    chown(place, None, Some(group))?;
    fs::set_permissions(place, fs::Permissions::from_mode(0o2775))?;
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        if path.is_dir() {
            directory(&path, Some(group))?;
        } else {
            chown(&path, None, Some(group))?;
            let mode = fs::metadata(&path)?.permissions().mode();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o660))?;
        }
    }
    Ok(())
}

/// A file of a volume: its path in it, its content, its mode.
type File = (String, Vec<u8>, u32);

/// The files of a source `secret` or `configMap`.
fn files_of(objects: &Objects, source: &Value, mode_of_all: u32) -> anyhow::Result<Vec<File>> {
    let (kind, reference) = match (source.get("secret"), source.get("configMap")) {
        (Some(secret), None) => ("Secret", secret),
        (None, Some(map)) => ("ConfigMap", map),
        _ => bail!("nothing here knows such a source: {source}"),
    };
    let name = reference.get("secretName").unwrap_or(&reference["name"]).as_str().context("no name")?;
    let optional = reference["optional"] == true;
    let Some(data) = objects.data(kind, name)? else {
        if optional {
            return Ok(Vec::new());
        }
        bail!("there is no {kind} {name}");
    };
    let Some(chosen) = reference.get("items") else {
        return Ok(data.into_iter().map(|(key, content)| (key, content, mode_of_all)).collect());
    };
    let mut files = Vec::new();
    for item in items(chosen) {
        let key = item["key"].as_str().context("an item without a key")?;
        let content = data.get(key).with_context(|| format!("{kind} {name} has no {key}"))?;
        let path = item["path"].as_str().context("an item without a path")?;
        files.push((path.to_owned(), content.clone(), mode(&item["mode"], mode_of_all)?));
    }
    Ok(files)
}

/// Writes files as Kubernetes does: in a directory that `..data` links to, so that all change at once. With a group, they are
/// its, and it may read them whatever their mode says.
fn write(place: &Path, files: &[File], group: Option<u32>) -> anyhow::Result<()> {
    let version = (0..).map(|number| format!("..{number}")).find(|name| !place.join(name).exists());
    let version = version.unwrap_or_default();
    let dir = place.join(&version);
    fs::create_dir_all(&dir)?;
    for (path, content, mode) in files {
        if path.contains('/') {
            bail!("a file in a folder of a volume: {path}");
        }
        let file = dir.join(path);
        fs::write(&file, content)?;
        let mode = if group.is_some() { mode | 0o440 } else { *mode };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        chown(&file, None, group)?;
        let link = place.join(path);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(path), link)?;
        }
    }
    symlink(&version, place.join("..new"))?;
    fs::rename(place.join("..new"), place.join("..data"))?;
    Ok(())
}

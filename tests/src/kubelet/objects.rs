//! What pods refer to: Secrets, ConfigMaps, claims; and a pod's environment made of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::helm::{self, entries, items};

/// The objects of a cluster.
#[derive(Debug, Default)]
pub(super) struct Objects(Mutex<Vec<Value>>);

/// What a pod is told of itself.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) address: String,
    pub(super) metadata: Value,
}

impl Objects {
    /// Takes these, in the place of those of the same kind and name.
    pub(super) fn put(&self, new: &[Value]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|old| !new.iter().any(|object| helm::title(object) == helm::title(old)));
        all.extend_from_slice(new);
    }

    pub(super) fn get(&self, kind: &str, name: &str) -> Option<Value> {
        helm::find(&self.0.lock().unwrap_or_else(PoisonError::into_inner), kind, name).cloned()
    }

    pub(super) fn has(&self, kind: &str, name: &str) -> bool {
        self.get(kind, name).is_some()
    }

    pub(super) fn of_kind(&self, kind: &str) -> Vec<Value> {
        helm::of_kind(&self.0.lock().unwrap_or_else(PoisonError::into_inner), kind).cloned().collect()
    }

    /// What a Secret or a ConfigMap holds, by key.
    pub(super) fn data(&self, kind: &str, name: &str) -> anyhow::Result<Option<BTreeMap<String, Vec<u8>>>> {
        let Some(object) = self.get(kind, name) else { return Ok(None) };
        let mut data = BTreeMap::new();
        for (key, value) in entries(&object["data"]) {
            let text = value.as_str().with_context(|| format!("{kind} {name}: {key} is no text"))?;
            let content = if kind == "Secret" { decode(text)? } else { text.as_bytes().to_vec() };
            data.insert(key.clone(), content);
        }
        for (key, value) in entries(&object["stringData"]) {
            data.insert(key.clone(), value.as_str().unwrap_or_default().as_bytes().to_vec());
        }
        Ok(Some(data))
    }

    /// The environment of a container.
    pub(super) fn environment(
        &self,
        container: &Value,
        own: &Identity,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for from in items(&container["envFrom"]) {
            let (kind, reference) =
                match (from.get("secretRef"), from.get("configMapRef"), from.get("prefix")) {
                    (Some(secret), None, None) => ("Secret", secret),
                    (None, Some(map), None) => ("ConfigMap", map),
                    _ => bail!("nothing here knows such an envFrom: {from}"),
                };
            let name = reference["name"].as_str().unwrap_or_default();
            match self.data(kind, name)? {
                Some(data) => {
                    for (key, value) in data {
                        found.insert(key, String::from_utf8(value)?);
                    }
                }
                None if reference["optional"] == true => {}
                None => bail!("there is no {kind} {name}"),
            }
        }
        for variable in items(&container["env"]) {
            let name = variable["name"].as_str().context("a variable without a name")?;
            let value = match variable.get("valueFrom") {
                None => Some(expand(variable["value"].as_str().unwrap_or_default(), &found)),
                Some(source) => self.value_from(source, own).with_context(|| name.to_owned())?,
            };
            if let Some(value) = value {
                found.insert(name.to_owned(), value);
            }
        }
        Ok(found)
    }

    fn value_from(&self, source: &Value, own: &Identity) -> anyhow::Result<Option<String>> {
        let keys: Vec<&String> = entries(source).map(|(key, _)| key).collect();
        let kind = match keys[..] {
            [key] if key == "fieldRef" => {
                let field = source[key]["fieldPath"].as_str().unwrap_or_default();
                return Ok(Some(own.field(field)?));
            }
            [key] if key == "secretKeyRef" => "Secret",
            [key] if key == "configMapKeyRef" => "ConfigMap",
            _ => bail!("nothing here knows such a valueFrom: {source}"),
        };
        let reference = &source[keys[0]];
        let (name, key) = (reference["name"].as_str().unwrap_or_default(), reference["key"].as_str());
        let data = self.data(kind, name)?;
        match data.as_ref().and_then(|data| data.get(key.unwrap_or_default())) {
            Some(value) => Ok(Some(String::from_utf8(value.clone())?)),
            None if reference["optional"] == true => Ok(None),
            None => bail!("there is no {key:?} in {kind} {name}"),
        }
    }
}

impl Identity {
    fn field(&self, path: &str) -> anyhow::Result<String> {
        if let Some(key) = path.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']")) {
            return Ok(self.metadata["labels"][key].as_str().unwrap_or_default().to_owned());
        }
        Ok(match path {
            "metadata.name" => self.name.clone(),
            "metadata.namespace" => self.namespace.clone(),
            "metadata.uid" => self.uid.clone(),
            "status.podIP" => self.address.clone(),
            "spec.nodeName" => "node".to_owned(),
            _ => bail!("nothing here knows the field {path}"),
        })
    }
}

/// What base64 stands for.
fn decode(text: &str) -> anyhow::Result<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut number = 0;
        for byte in group {
            let digit = ALPHABET.iter().position(|known| known == byte).context("no base64")?;
            number = (number << 6) | u32::try_from(digit)?;
        }
        number <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&number.to_be_bytes()[1..group.len()]);
    }
    Ok(bytes)
}

/// Fills in `$(NAME)` as Kubernetes does: what is not known stays, and `$$` is one `$`.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{decode, expand};

    #[test]
    fn base64_is_what_others_take_it_for() {
        for (text, expected) in
            [("", ""), ("YQ==", "a"), ("YWI=", "ab"), ("YWJj", "abc"), ("YWJjPz8/Pg==", "abc???>")]
        {
            assert_eq!(decode(text).expect("decoded"), expected.as_bytes());
        }
        assert!(decode("a b").is_err());
    }

    #[test]
    fn variables_are_filled_in_and_what_is_not_known_stays() {
        let known = BTreeMap::from([("NAME".to_owned(), "pod-0".to_owned())]);
        for (text, expected) in [
            ("http://$(NAME).svc:80", "http://pod-0.svc:80"),
            ("$(OTHER) $$(NAME) $NAME $", "$(OTHER) $(NAME) $NAME $"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &known), expected);
        }
    }
}

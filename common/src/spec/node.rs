//! A YAML or JSON document as a tree that knows its lines, and a serde deserializer over it whose
//! errors carry the path, the line and a near miss.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_saphyr::Spanned;

use super::error::{Problem, nearest};

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub line: u64,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub line: u64,
    pub value: Node,
}

impl Node {
    /// The line of the value at a dotted path (`datasets[0].synthetic.margin`), or of its nearest ancestor.
    pub fn line_of(&self, path: &str) -> u64 {
        let mut node = self;
        let mut line = self.line;
        for step in
            path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty())
        {
            let next = match &node.kind {
                Kind::Map(entries) => entries.iter().find(|e| e.key == step).map(|e| (e.line, &e.value)),
                Kind::Seq(items) => {
                    step.parse::<usize>().ok().and_then(|i| items.get(i)).map(|n| (n.line, n))
                }
                _ => None,
            };
            let Some((found_line, found)) = next else { break };
            line = found_line;
            node = found;
        }
        line
    }

    fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".into(),
            Kind::Bool(b) => format!("`{b}`"),
            Kind::Unsigned(n) => format!("`{n}`"),
            Kind::Signed(n) => format!("`{n}`"),
            Kind::Float(x) => format!("`{x}`"),
            Kind::Text(t) => format!("\"{t}\""),
            Kind::Seq(_) => "a list".into(),
            Kind::Map(_) => "a mapping".into(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KindVisitor;
        impl<'de> Visitor<'de> for KindVisitor {
            type Value = Kind;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }
            fn visit_unit<E>(self) -> Result<Kind, E> {
                Ok(Kind::Null)
            }
            fn visit_none<E>(self) -> Result<Kind, E> {
                Ok(Kind::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Kind, D::Error> {
                Kind::deserialize(d)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Kind, E> {
                Ok(Kind::Bool(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Kind, E> {
                Ok(Kind::Unsigned(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Kind, E> {
                Ok(u64::try_from(v).map_or(Kind::Signed(v), Kind::Unsigned))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Kind, E> {
                Ok(Kind::Float(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Kind, E> {
                Ok(Kind::Text(v.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Kind::Seq(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let line = key.referenced.line();
                    entries.push(Entry { key: key.value, line, value: map.next_value()? });
                }
                Ok(Kind::Map(entries))
            }
        }
        deserializer.deserialize_any(KindVisitor)
    }
}

/// Reads a typed value out of the tree.
pub(crate) fn read<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<T, Problem> {
    T::deserialize(At { node, path: String::new() })
}

struct At<'de> {
    node: &'de Node,
    path: String,
}

impl At<'_> {
    fn wrong(&self, expected: &str) -> Problem {
        Problem::at(
            &self.path,
            self.node.line,
            format!("found {}, expected {expected}", self.node.describe()),
        )
    }

    fn locate<T>(&self, result: Result<T, Problem>) -> Result<T, Problem> {
        result.map_err(|problem| problem.or_at(&self.path, self.node.line))
    }
}

fn child(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

struct Expected<'a, V>(&'a V);
impl<'de, V: Visitor<'de>> fmt::Display for Expected<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

impl<'de> Deserializer<'de> for At<'de> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let (path, line) = (self.path.clone(), self.node.line);
        let expected = Expected(&visitor).to_string();
        let result = match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(v) => visitor.visit_bool(*v),
            Kind::Unsigned(v) => visitor.visit_u64(*v),
            Kind::Signed(v) => visitor.visit_i64(*v),
            Kind::Float(v) => visitor.visit_f64(*v),
            Kind::Text(v) => visitor.visit_borrowed_str(v),
            Kind::Seq(items) => {
                visitor.visit_seq(Items { items: items.iter().enumerate(), path: self.path.clone() })
            }
            Kind::Map(entries) => {
                visitor.visit_map(Entries { entries: entries.iter(), value: None, path: self.path.clone() })
            }
        };
        result.map_err(|problem| {
            if problem.is_type_mismatch() {
                Problem::at(&path, line, format!("found {}, expected {expected}", self.node.describe()))
            } else {
                problem.or_at(&path, line)
            }
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.node.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let Kind::Map(entries) = &self.node.kind else {
            return Err(self.wrong(&format!("a mapping with the fields {}", list(fields))));
        };
        let mut seen = std::collections::HashSet::new();
        for entry in entries {
            let path = child(&self.path, &entry.key);
            if !seen.insert(entry.key.as_str()) {
                return Err(Problem::at(&path, entry.line, format!("field `{}` appears twice", entry.key)));
            }
            if !fields.contains(&entry.key.as_str()) {
                let message = format!("unknown field `{}`", entry.key);
                return Err(Problem::at(&path, entry.line, message)
                    .allowed(list(fields))
                    .hint(nearest(&entry.key, fields)));
            }
        }
        let result =
            visitor.visit_map(Entries { entries: entries.iter(), value: None, path: self.path.clone() });
        self.locate(result)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match &self.node.kind {
            Kind::Text(text) => {
                if !variants.contains(&text.as_str()) {
                    let message = format!("found \"{text}\"");
                    return Err(Problem::at(&self.path, self.node.line, message)
                        .allowed(list(variants))
                        .hint(nearest(text, variants)));
                }
                let bare = text.as_str();
                let result: Result<V::Value, Problem> = visitor.visit_enum(bare.into_deserializer());
                // The only other kind of variant holds settings, which a bare word does not.
                let message = format!("found the bare word \"{bare}\"");
                let needs =
                    |_| Problem::field("", message).allowed(format!("`{bare}: {{…}}` with its settings"));
                self.locate(
                    result.map_err(|problem| if problem.is_unlocated() { needs(problem) } else { problem }),
                )
            }
            Kind::Map(entries) => match entries.as_slice() {
                [entry] => {
                    let path = child(&self.path, &entry.key);
                    if !variants.contains(&entry.key.as_str()) {
                        return Err(Problem::at(&path, entry.line, format!("unknown kind `{}`", entry.key))
                            .allowed(list(variants))
                            .hint(nearest(&entry.key, variants)));
                    }
                    visitor.visit_enum(Variant { key: &entry.key, value: At { node: &entry.value, path } })
                }
                _ => Err(self.wrong(&format!("a mapping with exactly one of {}", list(variants)))),
            },
            _ => Err(self.wrong(&format!("one of {}", list(variants)))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

struct Variant<'de> {
    key: &'de str,
    value: At<'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = Problem;
    type Variant = At<'de>;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, At<'de>), Problem> {
        let name: de::value::StrDeserializer<'de, Problem> = self.key.into_deserializer();
        Ok((seed.deserialize(name)?, self.value))
    }
}

impl<'de> de::VariantAccess<'de> for At<'de> {
    type Error = Problem;
    fn unit_variant(self) -> Result<(), Problem> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Problem> {
        seed.deserialize(self)
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_any(visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        f: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.deserialize_struct("", f, visitor)
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
    path: String,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Problem;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Problem> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        seed.deserialize(At { node, path: format!("{}[{index}]", self.path) }).map(Some)
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    value: Option<&'de Entry>,
    path: String,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Problem;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Problem> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        let name: de::value::StrDeserializer<'de, Problem> = entry.key.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Problem> {
        let entry = self.value.take().ok_or_else(|| de::Error::custom("value before key"))?;
        let path = child(&self.path, &entry.key);
        seed.deserialize(At { node: &entry.value, path })
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

//! Results that no coordinator has acknowledged yet.

use std::collections::BTreeMap;

use bytes::Bytes;
use evenkeel_common::id::SweepId;

use super::PackKey;

/// Results by pack, in order of arrival.
#[derive(Debug, Default)]
pub struct Outbox {
    packs: BTreeMap<PackKey, (SweepId, Vec<Bytes>)>,
    bytes: usize,
}

impl Outbox {
    /// Keeps results of a pack.
    pub fn keep(&mut self, pack: PackKey, sweep: &SweepId, records: Bytes) {
        self.bytes += records.len();
        self.packs.entry(pack).or_insert_with(|| (sweep.clone(), Vec::new())).1.push(records);
    }

    /// Forgets a pack: what it delivered is durable.
    pub fn acknowledge(&mut self, pack: PackKey) {
        if let Some((_, records)) = self.packs.remove(&pack) {
            self.bytes -= records.iter().map(Bytes::len).sum::<usize>();
        }
    }

    /// Everything that is kept, oldest pack first.
    pub fn iter(&self) -> impl Iterator<Item = (PackKey, &SweepId, &Bytes)> {
        self.packs
            .iter()
            .flat_map(|(pack, (sweep, records))| records.iter().map(move |bytes| (*pack, sweep, bytes)))
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stay_until_their_pack_is_acknowledged() {
        let sweep = SweepId::parse("s-1").expect("id");
        let mut outbox = Outbox::default();
        let (first, second) = (PackKey { epoch: 1, pack: 7 }, PackKey { epoch: 2, pack: 1 });
        outbox.keep(second, &sweep, Bytes::from_static(b"cc"));
        outbox.keep(first, &sweep, Bytes::from_static(b"a"));
        outbox.keep(first, &sweep, Bytes::from_static(b"b"));
        let kept: Vec<&[u8]> = outbox.iter().map(|(_, _, bytes)| bytes.as_ref()).collect();
        assert_eq!((kept, outbox.bytes()), (vec![&b"a"[..], b"b", b"cc"], 4));
        outbox.acknowledge(first);
        outbox.acknowledge(first);
        assert_eq!(outbox.bytes(), 2);
        outbox.acknowledge(second);
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }
}

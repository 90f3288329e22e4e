//! A map of bounded weight that forgets what was not used for longest.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Least recently used goes first. Weights are in bytes, or whatever the owner counts in.
#[derive(Debug)]
pub struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// When each was used last, as a count of uses.
    order: BTreeMap<u64, K>,
    clock: u64,
    weight: usize,
    limit: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    /// An empty map that holds at most `limit`.
    pub fn new(limit: usize) -> Lru<K, V> {
        Lru { entries: HashMap::new(), order: BTreeMap::new(), clock: 0, weight: 0, limit }
    }

    /// Finds and counts as used.
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        if let Some(key) = self.order.remove(&entry.used) {
            self.order.insert(self.clock, key);
        }
        entry.used = self.clock;
        Some(&mut entry.value)
    }

    /// Puts a value in, in place of one with the same key, and forgets others until the limit holds. A value that is
    /// heavier than the limit is not kept.
    pub fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.limit {
            return;
        }
        while self.weight + weight > self.limit {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.weight -= entry.weight;
            }
        }
        self.clock += 1;
        self.weight += weight;
        self.order.insert(self.clock, key.clone());
        self.entries.insert(key, Entry { value, weight, used: self.clock });
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.used);
        self.weight -= entry.weight;
        Some(entry.value)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The sum of the weights.
    pub fn weight(&self) -> usize {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut lru = Lru::new(10);
        lru.insert("a", 1, 4);
        lru.insert("b", 2, 4);
        assert_eq!(lru.get(&"a"), Some(&mut 1));
        lru.insert("c", 3, 4);
        assert_eq!(lru.get(&"a"), Some(&mut 1));
        assert_eq!(lru.get(&"b"), None);
        lru.insert("huge", 4, 11);
        assert!(lru.get(&"huge").is_none());
        assert_eq!((lru.len(), lru.weight()), (2, 8));
    }

    proptest! {
        #[test]
        fn weight_and_order_stay_consistent(steps in proptest::collection::vec((0u8..3, 0u8..12, 0usize..9), 0..200)) {
            let mut lru = Lru::new(20);
            for (what, key, weight) in steps {
                match what {
                    0 => lru.insert(key, weight, weight),
                    1 => { lru.get(&key); }
                    _ => { lru.remove(&key); }
                }
                prop_assert!(lru.weight() <= 20);
                prop_assert_eq!(lru.order.len(), lru.len());
                prop_assert_eq!(lru.entries.values().map(|e| e.weight).sum::<usize>(), lru.weight());
            }
        }
    }
}

//! Events are told before the status that goes with them. A status that cannot be written is decided upon again, and what
//! was told with it is not told twice.

use crate::cache::Key;
use crate::events::Event;
use std::collections::HashMap;

/// What was told by passes whose status could not be written.
#[derive(Debug, Default)]
pub struct Telling {
    told: HashMap<Key, Vec<Event>>,
}

impl Telling {
    /// Takes the events of a pass; gives back those that are to be told.
    pub fn fresh(&mut self, key: &Key, events: Vec<Event>) -> Vec<Event> {
        let told = self.told.entry(key.clone()).or_default();
        let fresh: Vec<Event> = events.into_iter().filter(|event| !told.contains(event)).collect();
        told.extend(fresh.iter().cloned());
        fresh
    }

    /// The status was written, or there is no Rollout any more: what happens next is news.
    pub fn done(&mut self, key: &Key) {
        self.told.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_once_until_the_status_is_written() {
        let (mut telling, key) = (Telling::default(), Key::new("shop", "web"));
        let (paused, aborted) = (Event::normal("RolloutPaused", "p"), Event::warning("RolloutAborted", "a"));
        let one = vec![paused.clone()];
        assert_eq!(telling.fresh(&key, one.clone()), one);
        assert_eq!(telling.fresh(&key, vec![paused, aborted.clone()]), [aborted]);
        assert_eq!(telling.fresh(&Key::new("shop", "api"), one.clone()), one, "another Rollout");
        telling.done(&key);
        assert_eq!(telling.fresh(&key, one.clone()), one);
    }
}

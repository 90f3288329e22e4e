//! Candidates beside an API server that fails, answers late or not at all, in simulated time.

use super::*;
use crate::api::{ApiResult, CALL_TIMEOUT, PatchCall, Propagation, Resource};
use futures::future::{BoxFuture, FutureExt};
use proptest::prelude::*;
use std::sync::Mutex;
use tokio::runtime::Builder;
use tokio::time::sleep;

/// What the API server does with a call.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Answers,
    /// It refuses at once.
    Fails,
    /// It does what it was asked for, and the answer is lost.
    Mute,
    /// It does nothing, and the call is given up.
    Hangs,
    /// It takes so many seconds to begin, and as many until the answer is there.
    Slow(u64),
}

/// One Lease. Each candidate has a line of its own to it, with the moods for so many seconds each, in turn.
#[derive(Default)]
struct Server {
    lease: Mutex<Option<Value>>,
}

struct Line {
    server: Arc<Server>,
    moods: Vec<(u64, Mood)>,
    began: Instant,
}

impl Line {
    fn mood(&self) -> Mood {
        let mut seconds = self.began.elapsed().as_secs();
        for (length, mood) in &self.moods {
            if seconds < *length {
                return *mood;
            }
            seconds -= length;
        }
        Mood::Answers
    }

    async fn call<T>(&self, work: impl FnOnce(&mut Option<Value>) -> ApiResult<T> + Send) -> ApiResult<T> {
        let mood = self.mood();
        match mood {
            Mood::Fails => return Err(ApiError::Other("is down".to_owned())),
            Mood::Hangs => {
                sleep(CALL_TIMEOUT).await;
                return Err(ApiError::Timeout(CALL_TIMEOUT));
            }
            Mood::Slow(seconds) => sleep(Duration::from_secs(seconds)).await,
            Mood::Answers | Mood::Mute => sleep(Duration::from_millis(20)).await,
        }
        let answer = work(&mut self.server.lease.lock().unwrap());
        match mood {
            Mood::Slow(seconds) => sleep(Duration::from_secs(seconds)).await,
            Mood::Mute => return Err(ApiError::Timeout(CALL_TIMEOUT)),
            _ => {}
        }
        answer
    }
}

fn version(lease: &Value) -> u64 {
    lease["metadata"]["resourceVersion"].as_str().unwrap_or("0").parse().unwrap()
}

fn with_version(object: &Value, version: u64) -> Value {
    let mut next = object.clone();
    next["metadata"]["resourceVersion"] = version.to_string().into();
    next
}

impl Api for Line {
    fn get<'a>(&'a self, _: &'a Resource, _: &'a str, name: &'a str) -> BoxFuture<'a, ApiResult<Value>> {
        self.call(move |lease| lease.clone().ok_or_else(|| ApiError::NotFound(name.to_owned()))).boxed()
    }

    fn create<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a str,
        object: &'a Value,
        _: bool,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        let work = |lease: &mut Option<Value>| match lease {
            Some(_) => Err(ApiError::AlreadyExists("exists".to_owned())),
            None => Ok(lease.insert(with_version(object, 1)).clone()),
        };
        self.call(work).boxed()
    }

    fn replace<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a str,
        _: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        let work = |lease: &mut Option<Value>| match lease {
            Some(there) if version(there) == version(object) => {
                *there = with_version(object, version(object) + 1);
                Ok(there.clone())
            }
            _ => Err(ApiError::Conflict("changed".to_owned())),
        };
        self.call(work).boxed()
    }

    fn list<'a>(&'a self, _: &'a Resource, _: &'a str, _: &'a str) -> BoxFuture<'a, ApiResult<Vec<Value>>> {
        unreachable!("an election lists nothing")
    }

    fn patch<'a>(&'a self, _: PatchCall<'a>) -> BoxFuture<'a, ApiResult<Value>> {
        unreachable!("an election patches nothing")
    }

    fn delete<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a str,
        _: &'a str,
        _: &'a str,
        _: Propagation,
    ) -> BoxFuture<'a, ApiResult<()>> {
        unreachable!("an election deletes nothing")
    }

    fn evict<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, ApiResult<()>> {
        unreachable!("an election evicts nobody")
    }
}

fn candidate(server: &Arc<Server>, identity: &str, moods: Vec<(u64, Mood)>) -> Election {
    let line = Line { server: Arc::clone(server), moods, began: Instant::now() };
    let options = LeaseOptions {
        namespace: "shop".to_owned(),
        name: "lock".to_owned(),
        identity: identity.to_owned(),
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };
    Election::new(Arc::new(line), options)
}

/// In simulated time.
fn simulated<T>(test: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

/// Takes the Lease again and again, and notes who leads at each time.
async fn lead(mut candidate: Election, leaders: Arc<Mutex<Vec<String>>>) {
    let identity = candidate.options.identity.clone();
    loop {
        let since = candidate.acquire().await;
        leaders.lock().unwrap().push(identity.clone());
        candidate.keep(since).await;
        leaders.lock().unwrap().retain(|leader| *leader != identity);
    }
}

fn moods() -> impl Strategy<Value = Vec<(u64, Mood)>> {
    let mood = prop_oneof![
        3 => Just(Mood::Answers),
        1 => Just(Mood::Fails),
        1 => Just(Mood::Mute),
        1 => Just(Mood::Hangs),
        1 => (1_u64..14).prop_map(Mood::Slow),
    ];
    proptest::collection::vec((1_u64..25, mood), 0..12)
}

proptest! {
    /// Whatever the API server does to each of them: never do two lead at once, and afterwards one leads.
    #[test]
    fn no_two_lead(a in moods(), b in moods()) {
        simulated(async {
            let server = Arc::new(Server::default());
            let leaders = Arc::new(Mutex::new(Vec::new()));
            for (identity, moods) in [("a", a), ("b", b)] {
                tokio::spawn(lead(candidate(&server, identity, moods), Arc::clone(&leaders)));
            }
            for _ in 0..4_000 {
                sleep(Duration::from_millis(100)).await;
                let leaders = leaders.lock().unwrap().clone();
                prop_assert!(leaders.len() <= 1, "{leaders:?} lead at once");
            }
            prop_assert_eq!(leaders.lock().unwrap().len(), 1, "somebody leads in the end");
            Ok(())
        })?;
    }
}

/// The holder's last renewal was at 4 s; then the API server refused, and at last it did not answer.
#[test]
fn who_cannot_renew_stops_before_another_begins() {
    simulated(async {
        let server = Arc::new(Server::default());
        let moods = vec![(5, Mood::Answers), (7, Mood::Fails), (1000, Mood::Hangs)];
        let mut holder = candidate(&server, "a", moods);
        let began = Instant::now();
        let since = holder.acquire().await;
        let reason = holder.keep(since).await;
        assert_eq!(reason, "the Lease could not be renewed for 10s");
        assert!(began.elapsed() < Duration::from_secs(15), "stopped after {:?}", began.elapsed());
    });
}

/// A renewal of our own that we had given up as lost came through in between.
#[test]
fn a_conflict_with_oneself_ends_nothing() {
    simulated(async {
        let server = Arc::new(Server::default());
        let mut holder = candidate(&server, "a", Vec::new());
        let since = holder.acquire().await;
        let behind = Arc::clone(&server);
        let disturb = async move {
            // Between the read and the write of the first renewal.
            sleep(Duration::from_millis(2_030)).await;
            let mut lease = behind.lease.lock().unwrap();
            let there = lease.clone().unwrap();
            *lease = Some(with_version(&there, version(&there) + 1));
        };
        tokio::spawn(disturb);
        let kept = tokio::time::timeout(Duration::from_secs(60), holder.keep(since)).await;
        assert!(kept.is_err(), "{kept:?}");
    });
}

//! How many pods each version gets. Arithmetic only.

use tidegate_crds::IntOrString;
use tidegate_crds::rollout::{Canary, CanaryStep, ReplicaProgressThreshold, SetCanaryScale};

/// Resolves `maxSurge` or `maxUnavailable`. A text is a percentage whatever its form (`"25"`, `"25%"`), as the peer
/// reads it; a number is pods. `None` is 25 %.
pub fn resolve(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    let percent = |p: i64| {
        let product = p.max(0) * i64::from(total.max(0));
        i32::try_from(if round_up { (product + 99) / 100 } else { product / 100 }).unwrap_or(i32::MAX)
    };
    match value {
        None => percent(25),
        Some(IntOrString::Int(pods)) => (*pods).max(0),
        Some(IntOrString::String(text)) => percent(text.trim().trim_end_matches('%').parse().unwrap_or(0)),
    }
}

/// Surge and unavailability together: when both come out as 0, one pod may be unavailable, or nothing could ever move.
pub fn bounds(max_surge: Option<&IntOrString>, max_unavailable: Option<&IntOrString>, total: i32) -> (i32, i32) {
    let surge = resolve(max_surge, total, true);
    let unavailable = resolve(max_unavailable, total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// The steps of a canary; none are an empty slice.
pub fn steps(canary: &Canary) -> &[CanaryStep] {
    canary.steps.as_deref().unwrap_or_default()
}

/// The weight that is everything.
pub fn max_weight(canary: &Canary) -> i32 {
    canary.traffic_routing.as_ref().and_then(|r| r.max_traffic_weight).unwrap_or(100).max(1)
}

/// The weight that the steps ask for at `index`: the last `setWeight` at or before it.
pub fn weight_at(canary: &Canary, index: usize) -> i32 {
    let steps = steps(canary);
    if index >= steps.len() {
        return max_weight(canary);
    }
    steps[..=index].iter().rev().find_map(|s| s.set_weight).unwrap_or(0)
}

/// The weight that the steps asked for before `index`.
pub fn weight_before(canary: &Canary, index: usize) -> i32 {
    let steps = steps(canary);
    steps[..index.min(steps.len())].iter().rev().find_map(|s| s.set_weight).unwrap_or(0)
}

/// The `setCanaryScale` in force at `index`: the latest one, unless it hands back to the weight.
pub fn scale_at(canary: &Canary, index: usize) -> Option<&SetCanaryScale> {
    let steps = steps(canary);
    let upto = &steps[..(index + 1).min(steps.len())];
    if index >= steps.len() {
        return None;
    }
    upto.iter().rev().find_map(|s| s.set_canary_scale.as_ref()).filter(|s| !s.match_traffic_weight)
}

/// `ceil(weight · total / max)`.
pub fn share(weight: i32, total: i32, max: i32) -> i32 {
    let product = i64::from(weight.max(0)) * i64::from(total.max(0));
    let max = i64::from(max.max(1));
    i32::try_from((product + max - 1) / max).unwrap_or(i32::MAX)
}

/// The split of a canary without traffic routing: the pair (canary, stable) whose share of pods is nearest to the
/// weight. One pod more than `total` may be used when surge allows it. Between 0 and everything no side is empty, unless
/// there is only one pod to give.
pub fn split(total: i32, weight: i32, max: i32, surge: i32) -> (i32, i32) {
    if total <= 0 {
        return (0, 0);
    }
    let (total, weight, max) = (i64::from(total), i64::from(weight), i64::from(max));
    let may_be_empty = weight <= 0 || weight >= max || (total == 1 && surge == 0);
    let mut best: Option<(i64, i64)> = None;
    // Compares |canary/sum - weight/max| without fractions.
    let off = |(canary, sum): (i64, i64)| (canary * max - weight * sum).abs();
    let mut consider = |candidate: (i64, i64)| {
        let (canary, sum) = candidate;
        if !may_be_empty && (canary == 0 || canary == sum) {
            return;
        }
        if best.is_none_or(|b| off(candidate) * b.1 < off(b) * candidate.1) {
            best = Some(candidate);
        }
    };
    for sum in [total, total + 1] {
        if sum > total && surge <= 0 {
            break;
        }
        let (floor, rest) = (weight * sum / max, weight * sum % max);
        consider((if rest == 0 { floor } else { floor + 1 }, sum));
        // A tie goes to the canary.
        if rest * 2 != max {
            consider((floor, sum));
        }
    }
    let (canary, sum) = best.unwrap_or((0, total));
    (i32::try_from(canary).unwrap_or(0), i32::try_from(sum - canary).unwrap_or(0))
}

/// Pods of one version: wanted and there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// `spec.replicas`.
    pub spec: i32,
    /// Available pods.
    pub available: i32,
}

/// Sizes of canary, stable and older versions after one move of a canary without traffic routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Canary.
    pub canary: i32,
    /// Stable.
    pub stable: i32,
    /// Older versions, in the order in which they were given.
    pub old: Vec<i32>,
}

/// One move towards `target` (canary, stable) that keeps at least `total - unavailable` pods available and at most
/// `total + surge` pods in being. Older versions drain first, and while one has pods the others do not shrink.
pub fn advance(
    total: i32,
    (surge, unavailable): (i32, i32),
    target: (i32, i32),
    canary: Count,
    stable: Count,
    old: &[Count],
) -> Move {
    let mut to = Move { canary: canary.spec, stable: stable.spec, old: old.iter().map(|c| c.spec).collect() };
    let old_pods: i32 = to.old.iter().sum();
    let pods = canary.spec + stable.spec + old_pods;
    // Going up: the stable version before the canary.
    let mut room = (total + surge - pods).max(0);
    let more = (target.1 - to.stable).clamp(0, room);
    to.stable += more;
    room -= more;
    to.canary += (target.0 - to.canary).clamp(0, room);
    // Going down: what is available beyond the least.
    let available = canary.available + stable.available + old.iter().map(|c| c.available).sum::<i32>();
    let mut spare = available - (total - unavailable);
    if old_pods > 0 {
        for (size, count) in to.old.iter_mut().zip(old) {
            // Pods that are not available carry nothing: they go first and cost nothing.
            let unhealthy = (count.spec - count.available).max(0);
            *size -= unhealthy;
            let taken = (*size).min(spare.max(0));
            *size -= taken;
            spare -= taken;
        }
        // So do those of a canary that shrinks: the room that they take may be what all others wait for.
        to.canary -= (canary.spec - canary.available).clamp(0, (to.canary - target.0).max(0));
        // And of a stable version that does not come up, for as many pods as there are of the others.
        let there =
            canary.available.min(canary.spec) + old.iter().zip(&to.old).map(|(c, s)| c.available.min(*s)).sum::<i32>();
        let covered = (there + stable.spec - (total - unavailable)).max(0);
        if target.0 > to.canary && to.stable == stable.spec {
            let least = target.1.max(stable.spec - covered);
            to.stable -= (stable.spec - stable.available).clamp(0, (to.stable - least).max(0));
        }
        return to;
    }
    // A side that shrinks loses its unavailable pods for nothing.
    let shrink = |size: i32, target: i32, count: Count, spare: &mut i32| {
        if target >= size {
            return size;
        }
        let unhealthy = (count.spec - count.available).max(0).min(size - target);
        let taken = (size - target - unhealthy).min((*spare).max(0));
        *spare -= taken;
        size - unhealthy - taken
    };
    if target.0 < canary.spec {
        to.canary = shrink(canary.spec, target.0, canary, &mut spare);
    }
    if target.1 < stable.spec {
        // A pod of the stable version goes for one of the canary that is there, whatever it is worth itself: an update
        // that does not come up either must not take the place of everything.
        let covered = (canary.available.min(canary.spec) + stable.spec - (total - unavailable)).max(0);
        let least = if target.0 >= canary.spec { target.1.max(stable.spec - covered) } else { target.1 };
        to.stable = shrink(stable.spec, least, stable, &mut spare);
    }
    // Still too many, because the Rollout was made smaller: pods that serve nobody go.
    let mut over = to.canary + to.stable - total - surge;
    for (size, count) in [(&mut to.canary, canary), (&mut to.stable, stable)] {
        let cut = over.max(0).min((*size - count.available).max(0));
        *size -= cut;
        over -= cut;
    }
    to
}

/// The pods of a version are enough for its step to count as done.
pub fn reached(threshold: Option<&ReplicaProgressThreshold>, spec: i32, available: i32, desired: i32) -> bool {
    match threshold.filter(|t| t.value >= 0) {
        Some(t) if t.type_ == "Percent" => {
            desired == 0 || i64::from(available) * 100 >= i64::from(t.value) * i64::from(desired)
        }
        Some(t) if t.type_ == "Pods" => available >= t.value,
        _ => spec == desired && available == desired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(pods: i32) -> Count {
        Count { spec: pods, available: pods }
    }

    #[test]
    fn texts_are_percentages_and_numbers_are_pods() {
        let text = |t: &str| IntOrString::String(t.into());
        assert_eq!(resolve(None, 10, true), 3);
        assert_eq!(resolve(None, 10, false), 2);
        assert_eq!(resolve(Some(&text("3")), 100, false), 3);
        assert_eq!(resolve(Some(&text("50%")), 10, false), 5);
        assert_eq!(resolve(Some(&IntOrString::Int(3)), 100, false), 3);
        assert_eq!(bounds(Some(&IntOrString::Int(0)), Some(&text("1%")), 10), (0, 1));
    }

    #[test]
    fn a_stable_version_that_does_not_come_up_makes_room_also_while_an_older_one_serves() {
        let one = full(1);
        let never = Count { spec: 9, available: 0 };
        let to = advance(9, (3, 2), (9, 0), Count { spec: 2, available: 2 }, never, &[one]);
        assert_eq!(to, Move { canary: 2, stable: 4, old: vec![1] }, "7 of 9 have to be there, or on their way");
        let to = advance(9, (3, 2), (9, 0), Count { spec: 7, available: 2 }, Count { spec: 4, available: 0 }, &[one]);
        assert_eq!(to.stable, 4, "an update that does not come up either takes no more");
    }

    #[test]
    fn splits_as_the_peer_does() {
        for (total, weight, surge, want) in [
            (10, 10, 1, (1, 9)),
            (10, 30, 3, (3, 7)),
            (1, 5, 1, (1, 1)),
            (1, 50, 0, (1, 0)),
            (1, 49, 0, (0, 1)),
            (2, 1, 0, (1, 1)),
            (2, 99, 0, (1, 1)),
            (10, 0, 1, (0, 10)),
            (10, 100, 1, (10, 0)),
            (5, 50, 0, (3, 2)),
            (5, 50, 1, (3, 3)),
            (3, 10, 1, (1, 3)),
            (0, 50, 1, (0, 0)),
        ] {
            assert_eq!(split(total, weight, 100, surge), want, "{total} {weight} {surge}");
        }
    }

    #[test]
    fn moves_as_the_peer_does() {
        let none: &[Count] = &[];
        let go = |bounds, target, canary, stable| {
            let to = advance(10, bounds, target, canary, stable, none);
            (to.canary, to.stable)
        };
        assert_eq!(go((1, 1), (1, 9), full(0), full(10)), (1, 9));
        assert_eq!(go((3, 0), (3, 7), full(0), full(10)), (3, 10));
        assert_eq!(go((0, 5), (3, 7), full(0), full(10)), (0, 7));
        assert_eq!(go((0, 5), (3, 7), full(0), full(7)), (3, 7));
    }

    #[test]
    fn pods_that_serve_nobody_go_when_there_are_too_many() {
        let broken = Count { spec: 6, available: 0 };
        let to = advance(4, (2, 0), (4, 0), broken, full(4), &[]);
        assert_eq!((to.canary, to.stable), (2, 4));
        let broken = Count { spec: 2, available: 0 };
        let to = advance(4, (2, 0), (4, 0), broken, full(4), &[]);
        assert_eq!((to.canary, to.stable), (2, 4));
    }

    #[test]
    fn a_broken_canary_makes_room_while_an_older_version_drains() {
        let to = advance(2, (1, 0), (0, 2), Count { spec: 1, available: 0 }, full(1), &[full(1)]);
        assert_eq!(to.canary, 0);
    }

    #[test]
    fn a_broken_version_gives_way_only_to_pods_that_are_there() {
        let broken = |pods| Count { spec: pods, available: 0 };
        let to = advance(4, (1, 0), (4, 0), broken(1), broken(4), &[]);
        assert_eq!((to.canary, to.stable), (1, 4), "an update that is broken too");
        let to = advance(4, (1, 0), (4, 0), full(1), broken(4), &[]);
        assert_eq!((to.canary, to.stable), (1, 3));
        let to = advance(4, (0, 1), (4, 0), broken(0), broken(4), &[]);
        assert_eq!((to.canary, to.stable), (0, 3), "what may be unavailable makes room");
        let to = advance(4, (1, 0), (0, 4), broken(4), full(1), &[]);
        assert_eq!((to.canary, to.stable), (0, 1), "a broken canary that is taken back goes at once");
    }

    #[test]
    fn older_versions_drain_first() {
        let to = advance(10, (1, 1), (5, 5), full(2), full(7), &[full(1), Count { spec: 1, available: 0 }]);
        assert_eq!(to, Move { canary: 2, stable: 7, old: vec![0, 0] });
    }

    proptest! {
        #[test]
        fn moves_keep_the_bounds_and_arrive(
            total in 1..30i32, weight in 0..=100i32, surge in 0..5i32, unavailable in 0..5i32,
            old in prop::collection::vec(0..6i32, 0..3),
        ) {
            let bounds = if surge + unavailable == 0 { (0, 1) } else { (surge, unavailable) };
            let target = split(total, weight, 100, bounds.0);
            let (mut canary, mut stable) = (full(0), full(total));
            let mut old: Vec<Count> = old.into_iter().map(full).collect();
            let start: i32 = stable.spec + old.iter().map(|c| c.spec).sum::<i32>();
            let mut arrived = false;
            for _ in 0..200 {
                let to = advance(total, bounds, target, canary, stable, &old);
                let before = canary.available.min(to.canary) + stable.available.min(to.stable)
                    + old.iter().zip(&to.old).map(|(c, n)| c.available.min(*n)).sum::<i32>();
                prop_assert!(before >= total - bounds.1, "only {before} of {total} stay available");
                let pods = to.canary + to.stable + to.old.iter().sum::<i32>();
                prop_assert!(pods <= (total + bounds.0).max(start));
                arrived = (to.canary, to.stable) == target && to.old.iter().all(|o| *o == 0)
                    && (canary.spec, stable.spec) == target;
                canary = full(to.canary);
                stable = full(to.stable);
                old = to.old.into_iter().map(full).collect();
                if arrived {
                    break;
                }
            }
            prop_assert!(arrived, "never arrives at {target:?}: {canary:?} {stable:?} {old:?}");
        }
    }
}

//! Scenes with endpoints that come late: no Service gets traffic, or counts as switched, before it leads to the version
//! that is meant. The invariants look at every write.

use crate::cluster::{Millis, text};
use crate::scenarios::{assert_phase, blue_green, deployed, hash_of_image, routed, share_of_image, status};
use crate::simulation::Simulation;
use crate::users;
use serde_json::{Value, json};

/// How late they are.
const LATE: Millis = 20_000;
/// Long enough for an update all the same.
const LONG: Millis = 600_000;

fn ping_pong(steps: &Value) -> Value {
    let pair = json!({"pingService": "web-stable", "pongService": "web-canary"});
    routed(steps, &json!({"pingPong": pair, "canaryService": null, "stableService": null}))
}

fn late(strategy: &Value) -> Simulation {
    let simulation = deployed(3, strategy);
    simulation.world().endpoints_after = Some(LATE);
    simulation
}

#[test]
fn an_update_waits_for_endpoints() {
    let steps = json!([{"setWeight": 50}, {"pause": {"duration": 1}}]);
    for strategy in [routed(&steps, &json!({})), ping_pong(&steps), blue_green(&json!({}))] {
        let mut simulation = late(&strategy);
        users::release(&mut simulation.world(), false);
        simulation.run_for(LONG);
        assert_phase(&simulation, "Healthy", "");
        assert_eq!(share_of_image(&simulation, "web:2"), 100);
    }
}

#[test]
fn a_full_promotion_waits_for_endpoints() {
    let steps = json!([{"setWeight": 50}, {"pause": {}}]);
    let manual = json!({"autoPromotionEnabled": false});
    for strategy in [routed(&steps, &json!({})), ping_pong(&steps), blue_green(&manual)] {
        let mut simulation = late(&strategy);
        users::release(&mut simulation.world(), false);
        simulation.run_for(1_000);
        users::promote_full(&mut simulation.world());
        simulation.run_for(LONG);
        assert_phase(&simulation, "Healthy", "");
        assert_eq!(share_of_image(&simulation, "web:2"), 100);
    }
}

/// An update right after a promotion: the version that has just become stable keeps its traffic where it is until the
/// stable Service leads to it.
#[test]
fn an_update_after_a_promotion_waits_for_endpoints() {
    let steps = json!([{"setWeight": 50}]);
    for strategy in [routed(&steps, &json!({})), ping_pong(&steps)] {
        let mut simulation = late(&strategy);
        users::release(&mut simulation.world(), false);
        let (first, mut seconds) = (status(&simulation, "stableRS"), 0);
        while status(&simulation, "stableRS") == first && seconds < 300 {
            simulation.run_for(1_000);
            seconds += 1;
        }
        users::release(&mut simulation.world(), false);
        simulation.run_for(LONG);
        assert_phase(&simulation, "Healthy", "");
        let world = simulation.world();
        assert_eq!(text(world.rollout(), "/status/stableRS"), hash_of_image(&world, "web:3"));
    }
}

//! What must hold whatever happens, in whatever order; and proof that the laws see bugs.

mod world;

use bellows_agent_core::{AgentCore, Config, Effect, Planted};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestRng, TestRunner};
use world::{Roll, World};

fn rolls() -> impl Strategy<Value = Vec<Roll>> {
    prop::collection::vec(any::<Roll>(), 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold(rolls in rolls()) {
        let mut world = World::new(Planted::None);
        for (step, roll) in rolls.iter().enumerate() {
            if let Err(broken) = world.roll(*roll) {
                prop_assert!(false, "step {step}: {broken}");
            }
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_mind(rolls in rolls()) {
        let mut world = World::new(Planted::None);
        for roll in rolls {
            prop_assert_eq!(world.roll(roll), Ok(()));
        }
        let mut again = AgentCore::new(Config::default());
        let effects: Vec<Effect> = world.inputs.iter().flat_map(|(now, input)| again.step(*now, input.clone())).collect();
        prop_assert_eq!(&effects, &world.effects);
        prop_assert_eq!(format!("{again:?}"), format!("{:?}", world.core));
    }
}

/// How many of a fixed set of random lives break a law.
fn broken_lives(planted: Planted) -> Vec<String> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(RunnerConfig::default(), rng);
    let mut broken = Vec::new();
    for _ in 0..100 {
        let life = rolls().new_tree(&mut runner).expect("rolls can always be drawn").current();
        let mut world = World::new(planted);
        broken.extend(life.into_iter().find_map(|roll| world.roll(roll).err()));
    }
    broken
}

#[test]
fn the_laws_find_planted_bugs() {
    assert_eq!(broken_lives(Planted::None), Vec::<String>::new());
    for (planted, sign) in [
        (Planted::SkipFenceCheck, "fence went back"),
        (Planted::StopOnAbsence, "stopped without an order"),
        (Planted::LosePersistedFence, "before it was persisted"),
    ] {
        let broken = broken_lives(planted);
        assert!(broken.iter().any(|law| law.contains(sign)), "{planted:?} was not found: {broken:?}");
    }
}

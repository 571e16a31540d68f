//! Plays stories: each step on the queue and on the model, compared after each. A story that shows a difference is made
//! as short as it can be.

use std::collections::BTreeSet;
use std::fmt;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use uuid::Uuid;

use super::pure::Model;
use super::stage::Stage;
use super::steps::{Act, Known, Step, story};

/// A difference between queue and model, and the shortest story found that shows it.
pub(super) struct Difference {
    what: String,
    acts: Vec<Act>,
    pub(super) story: Vec<Step>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, after", self.what)?;
        self.acts.iter().try_for_each(|act| write!(f, "\n    {act:?}"))
    }
}

/// Stories of this seed, each other than the one before.
pub(super) fn runner(seed: Uuid) -> TestRunner {
    let mut wide = [0; 32];
    wide[..16].copy_from_slice(seed.as_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &wide))
}

/// Plays so many stories, and the first that shows a difference ever shorter. Answers all that was met in them.
pub(super) async fn play_many(
    stage: &Stage,
    stories: u32,
    shortenings: u32,
    seed: Uuid,
) -> Result<BTreeSet<String>, Difference> {
    let mut runner = runner(seed);
    let mut met = BTreeSet::new();
    for _ in 0..stories {
        let mut tree = story().new_tree(&mut runner).expect("nothing is filtered out");
        match play(stage, &tree.current()).await {
            Ok(more) => met.extend(more),
            Err(difference) => return Err(shorten(stage, &mut tree, shortenings, difference).await),
        }
    }
    Ok(met)
}

async fn shorten(
    stage: &Stage,
    tree: &mut impl ValueTree<Value = Vec<Step>>,
    shortenings: u32,
    found: Difference,
) -> Difference {
    let mut shortest = found;
    let mut goes_on = shortenings > 0 && tree.simplify();
    for _ in 0..shortenings {
        if !goes_on {
            break;
        }
        goes_on = match play(stage, &tree.current()).await {
            Ok(_) => tree.complicate(),
            Err(difference) => {
                shortest = difference;
                tree.simplify()
            }
        };
    }
    shortest
}

/// Plays a story to its end, or to the first difference.
pub(super) async fn play(stage: &Stage, steps: &[Step]) -> Result<BTreeSet<String>, Difference> {
    stage.clear().await;
    let (mut model, mut known) = (Model::default(), Known::default());
    let mut acts = Vec::new();
    let mut before = stage.look().await.now;
    for step in steps {
        let Some(act) = known.act(step) else { continue };
        acts.push(act.clone());
        let result = async {
            let answer = stage.perform(acts.len(), &act, &known).await?;
            model.take(&act, &answer, before)?;
            known.learn(&answer);
            let seen = stage.look().await;
            model.settle(&seen, before)?;
            before = seen.now;
            Ok(())
        };
        if let Err(what) = result.await {
            return Err(Difference { what, acts, story: steps.to_vec() });
        }
    }
    Ok(model.met)
}

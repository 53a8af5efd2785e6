//! `cargo run --release -p bellows-sim --example chaos -- FIRST END [BUG] [diary]`: runs the seeds FIRST..END, with a
//! planted bug if one is named, and prints the event log of each if asked to.

use bellows_sim::chaos::{self, Options, Planted};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default: u64| words.get(place).and_then(|word| word.parse().ok()).unwrap_or(default);
    let (first, end) = (number(0, 0), number(1, 10));
    let named = |bug: &&Planted| words.iter().any(|word| *word == format!("{bug:?}"));
    let planted = Planted::ALL.iter().find(named).copied().unwrap_or_default();
    let keep_diary = words.iter().any(|word| word == "diary");
    let options = Options { planted, keep_diary, ..Options::default() };
    let begun = std::time::Instant::now();
    if keep_diary {
        for seed in first..end {
            let report = chaos::run_seed(seed, &options);
            report.diary.iter().for_each(|line| println!("{line}"));
            println!("seed {seed}: {} events, {:?}", report.events, report.failure);
        }
        return;
    }
    let report = chaos::run(first..end, &options);
    print!("{report}");
    println!("{} ms of real time", begun.elapsed().as_millis());
    std::process::exit(i32::from(!report.holds()));
}

//! Sleeps a millisecond again and again, and prints how many microseconds later it woke than it
//! should, one line a turn: after the last, so that printing is not measured. Runs in a container,
//! so it has to be linked statically.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(1);

fn main() {
    let turns = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1000);
    let late: Vec<Duration> = (0..turns)
        .map(|_| {
            let start = Instant::now();
            std::thread::sleep(PAUSE);
            start.elapsed().saturating_sub(PAUSE)
        })
        .collect();
    for late in late {
        println!("{}", late.as_micros());
    }
}

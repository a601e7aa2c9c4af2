//! Timing contenders against each other, interleaved, in one run.

use std::fmt::Write;
use std::time::{Duration, Instant};

/// What can go wrong, with words that say where.
pub type Failure = Box<dyn std::error::Error>;

/// One contender: a name and one measured turn.
pub struct Contender<'a> {
    /// Its name in the table.
    pub name: String,
    /// Makes ready for a turn.
    pub prepare: Box<dyn FnMut() -> Result<(), Failure> + 'a>,
    /// Does it once. Only what it does is timed.
    pub turn: Box<dyn FnMut(usize) -> Result<(), Failure> + 'a>,
}

impl<'a> Contender<'a> {
    /// Names a contender.
    pub fn new(
        name: impl Into<String>,
        turn: impl FnMut(usize) -> Result<(), Failure> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            prepare: Box::new(|| Ok(())),
            turn: Box::new(turn),
        }
    }

    /// Has `prepare` done before each turn.
    pub fn prepared(mut self, prepare: impl FnMut() -> Result<(), Failure> + 'a) -> Self {
        self.prepare = Box::new(prepare);
        self
    }
}

/// Times of one contender, sorted.
pub struct Times {
    /// Its name.
    pub name: String,
    sorted: Vec<Duration>,
}

impl Times {
    /// The median in milliseconds.
    pub fn median_ms(&self) -> f64 {
        self.sorted
            .get(self.sorted.len() / 2)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// The minimum in milliseconds.
    pub fn minimum_ms(&self) -> f64 {
        self.sorted
            .first()
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// Lets every contender have `rounds` turns, one after the other in each round, after one that
/// does not count. `pause` goes between turns, so that what works in the background has settled.
///
/// # Errors
/// The first turn that fails, with the contender's name.
pub fn race(
    contenders: &mut [Contender<'_>],
    rounds: usize,
    pause: Duration,
) -> Result<Vec<Times>, Failure> {
    let mut times: Vec<Times> = contenders
        .iter()
        .map(|contender| Times {
            name: contender.name.clone(),
            sorted: Vec::new(),
        })
        .collect();
    for round in 0..=rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let named = |error| format!("{}: {error}", contender.name);
            (contender.prepare)().map_err(named)?;
            std::thread::sleep(pause);
            let start = Instant::now();
            (contender.turn)(round).map_err(named)?;
            let took = start.elapsed();
            if round > 0 {
                times.sorted.push(took);
            }
        }
    }
    for times in &mut times {
        times.sorted.sort_unstable();
    }
    Ok(times)
}

/// A budget: `subject` takes at most `factor` times what `peer` takes, by medians.
pub struct Budget {
    /// Index of what is budgeted.
    pub subject: usize,
    /// Index of what it is held against.
    pub peer: usize,
    /// The factor.
    pub factor: f64,
}

/// A table of times, and a line for each budget.
pub fn table(title: &str, events: &str, times: &[Times], budgets: &[Budget]) -> String {
    let mut text = format!(
        "### {title}\n\n{events}\n\n| what | median ms | minimum ms |\n| --- | ---: | ---: |\n"
    );
    // Writing to a String cannot fail.
    for time in times {
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} |",
            time.name,
            time.median_ms(),
            time.minimum_ms()
        );
    }
    if !budgets.is_empty() {
        text.push_str("\n| budget | ratio of medians | of minima | allowed | |\n");
        text.push_str("| --- | ---: | ---: | ---: | --- |\n");
    }
    for budget in budgets {
        let (Some(subject), Some(peer)) = (times.get(budget.subject), times.get(budget.peer))
        else {
            continue;
        };
        let ratio = subject.median_ms() / peer.median_ms();
        let _ = writeln!(
            text,
            "| {} / {} | {:.3} | {:.3} | {:.3} | {} |",
            subject.name,
            peer.name,
            ratio,
            subject.minimum_ms() / peer.minimum_ms(),
            budget.factor,
            if ratio <= budget.factor {
                "kept"
            } else {
                "**missed**"
            }
        );
    }
    text.push('\n');
    text
}

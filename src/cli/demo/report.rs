//! What is shown: each line as soon as it is known, or all of it as JSON at the end.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::check::Outcome;
use super::rate::Rate;
use super::{now, since};
use crate::api::client::Client;
use crate::cli::flows::flows_table;
use crate::cli::human::{count, list};
use crate::cli::output::{Failure, json, line};
use crate::control::model::{FlowQuery, FlowView, StatsInfo};

/// `10.20.0.2:40000 → 192.0.2.9:5000`, and the same in IPv6.
const PAIR_WIDTH: usize = 33;
/// The same after `seen as `.
const CAME_WIDTH: usize = PAIR_WIDTH + 8;

/// How it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    Plain,
    Colour,
    /// Only what failed, and the sum.
    Quiet,
    Json,
}

/// Everything that came of the demo.
#[derive(Debug)]
pub(super) struct Report {
    style: Style,
    begin: Duration,
    chapters: Vec<Chapter>,
}

#[derive(Debug, Serialize)]
struct Chapter {
    title: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commands: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Outcome>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rates: Vec<Rate>,
}

/// The whole as JSON.
#[derive(Serialize)]
struct Document<'a> {
    passed: usize,
    failed: usize,
    millis: u64,
    chapters: &'a [Chapter],
    flows: &'a [FlowView],
    stats: &'a StatsInfo,
}

impl Report {
    pub(super) fn new(as_json: bool, quiet: bool) -> Self {
        let style = match (as_json, quiet) {
            (true, _) => Style::Json,
            (false, true) => Style::Quiet,
            (false, false) if colours() => Style::Colour,
            (false, false) => Style::Plain,
        };
        Self { style, begin: now(), chapters: Vec::new() }
    }

    /// How many checks failed.
    pub(super) fn failed(&self) -> usize {
        self.results().filter(|ok| !ok).count()
    }

    fn results(&self) -> impl Iterator<Item = bool> {
        self.chapters.iter().flat_map(|chapter| {
            let rates = chapter.rates.iter().map(|rate| rate.ok);
            chapter.checks.iter().map(|check| check.ok).chain(rates)
        })
    }

    fn tells(&self) -> bool {
        matches!(self.style, Style::Plain | Style::Colour)
    }

    fn tell(&self, text: &str) -> Result<(), Failure> {
        if self.tells() { line(text) } else { Ok(()) }
    }

    /// The heading.
    pub(super) fn begin(&self) -> Result<(), Failure> {
        self.tell(&paint(self.style, "1", "A world of its own: kernels, a LAN, and one daemon"))
    }

    /// Something that is there.
    pub(super) fn fact(&self, name: &str, what: &str, nets: &[IpNet]) -> Result<(), Failure> {
        let addrs =
            if nets.is_empty() { String::new() } else { list(nets.iter().map(IpNet::addr)) };
        self.tell(format!("  {name:<8}{addrs:<24}{what}").trim_end())
    }

    /// A new title.
    pub(super) fn chapter(&mut self, title: &str) -> Result<(), Failure> {
        let (commands, checks, rates) = (Vec::new(), Vec::new(), Vec::new());
        self.chapters.push(Chapter { title: title.to_owned(), commands, checks, rates });
        let number = self.chapters.len();
        self.tell(&format!("\n{}", paint(self.style, "1", &format!("{number}. {title}"))))
    }

    /// What was done, as a user would do it.
    pub(super) fn command(&mut self, command: &str) -> Result<(), Failure> {
        if let Some(chapter) = self.chapters.last_mut() {
            chapter.commands.push(command.to_owned());
        }
        self.tell(&format!("  $ {command}"))
    }

    /// A check.
    pub(super) fn check(&mut self, outcome: Outcome) -> Result<(), Failure> {
        if self.tells() || (self.style == Style::Quiet && !outcome.ok) {
            line(&check_line(self.style, &outcome))?;
        }
        if let Some(chapter) = self.chapters.last_mut() {
            chapter.checks.push(outcome);
        }
        Ok(())
    }

    /// A rate.
    pub(super) fn rate(&mut self, rate: Rate) -> Result<(), Failure> {
        if self.tells() || (self.style == Style::Quiet && !rate.ok) {
            line(&rate_line(self.style, &rate))?;
        }
        if let Some(chapter) = self.chapters.last_mut() {
            chapter.rates.push(rate);
        }
        Ok(())
    }

    /// The flows and the sums.
    pub(super) fn end(&self, client: &Client) -> Result<(), Failure> {
        let flows = client.flows(&FlowQuery::default())?;
        let stats = client.stats()?;
        let failed = self.failed();
        let passed = self.results().count() - failed;
        let time = since(self.begin);
        if self.style == Style::Json {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let chapters = &self.chapters;
            let flows = &flows;
            return json(&Document { passed, failed, millis, chapters, flows, stats: &stats });
        }
        self.tell(&format!(
            "\n{}",
            paint(self.style, "1", "The flows, as `wharf flows` shows them")
        ))?;
        self.tell(&flows_table(&flows))?;
        self.tell(&format!("\n{}", totals(&stats)))?;
        let colour = if failed == 0 { "1;32" } else { "1;31" };
        let sum = format!("{passed} passed, {failed} failed, in {:.1} s", time.as_secs_f64());
        line(&paint(self.style, colour, &sum))
    }
}

/// Colours are for a terminal that has them and a person who wants them (no-color.org).
fn colours() -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
    stdout().is_terminal() && unset("NO_COLOR") && std::env::var("TERM").is_ok_and(|t| t != "dumb")
}

fn paint(style: Style, code: &str, text: &str) -> String {
    if style == Style::Colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn mark(style: Style, ok: bool) -> String {
    if ok { paint(style, "32", "✓") } else { paint(style, "31", "✗") }
}

/// One line: what was sent, and what the other end saw or the router said.
fn check_line(style: Style, outcome: &Outcome) -> String {
    let Outcome { proto, family, sent, seen, answer, error, ok, .. } = outcome;
    let came = match (seen, answer) {
        (Some(seen), _) if seen == sent => "seen unchanged".to_owned(),
        (Some(seen), _) => format!("seen as {seen}"),
        (None, Some(answer)) => answer.to_string(),
        (None, None) => String::new(),
    };
    // Padded before it is painted: what paints has no width.
    let came = format!("{came:<CAME_WIDTH$}");
    let is_changed = seen.as_ref().is_some_and(|seen| seen != sent);
    let came = if is_changed { paint(style, "36", &came) } else { came };
    let time = outcome
        .micros
        .map_or_else(String::new, |micros| paint(style, "2", &format!("  {}", in_millis(micros))));
    let mark = mark(style, *ok);
    let line = format!("  {mark} {proto:<4} {family}  {sent:<PAIR_WIDTH$}  {came}{time}");
    match error {
        Some(error) => format!("{}  {}", line.trim_end(), paint(style, "31", error)),
        None => line,
    }
}

fn rate_line(style: Style, rate: &Rate) -> String {
    let said = match &rate.error {
        None => rate.in_words(),
        Some(error) => paint(style, "31", error),
    };
    format!("  {} TCP  {}  {said}", mark(style, rate.ok), rate.family)
}

fn in_millis(micros: u64) -> String {
    format!("{:>3}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

/// Frames and what became of them.
fn totals(stats: &StatsInfo) -> String {
    let sum = |of: fn(&crate::datapath::inspect::WorkerStats) -> u64| -> u64 {
        stats.workers.iter().map(of).sum()
    };
    let mut drops: Vec<(String, u64)> = Vec::new();
    for (reason, number) in stats.ports.iter().flat_map(|port| &port.stats.drops) {
        match drops.iter_mut().find(|(known, _)| known == reason) {
            Some((_, sum)) => *sum += number,
            None => drops.push((reason.clone(), *number)),
        }
    }
    drops.retain(|(_, number)| *number > 0);
    drops.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    let (frames, hits, flows) = (sum(|w| w.frames), sum(|w| w.hits), sum(|w| w.flows));
    format!(
        "{} frames switched, {} of them by {} known flows; dropped: {}",
        count(frames),
        count(hits),
        count(flows),
        list(drops.iter().map(|(reason, number)| format!("{} {reason}", count(*number)))),
    )
}

#[cfg(test)]
mod tests;

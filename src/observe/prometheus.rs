//! Metrics as Prometheus reads them: its text format, version 0.0.4.
//!
//! Names follow its conventions: a prefix for the program, base units (seconds, bytes), `_total` at the end of
//! what only grows. A family is written once, its samples after its head, each set of labels once.

use std::fmt::{Display, Write};

/// What the text is, for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's numbers do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grow, until the daemon starts anew.
    Counter,
    /// Go up and down.
    Gauge,
    /// Count by size.
    Histogram,
}

/// A text that grows family by family.
#[derive(Debug, Default)]
pub struct Exposition(String);

/// One family, while its samples are written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family; `help` is one sentence.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.0, name }
    }

    /// A family of one number without labels.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// One number.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// Counts by size: how many there were in each class, by the largest size that belongs to it, and the
    /// sum of all sizes. The last class is open.
    pub fn histogram(&mut self, labels: &[(&str, &str)], classes: &[(u64, u64)], sum: u64) {
        let mut count = 0;
        for (at, (largest, n)) in classes.iter().enumerate() {
            count += n;
            if at + 1 < classes.len() {
                let largest = largest.to_string();
                self.line("_bucket", labels, Some(&largest), count);
            }
        }
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        le: Option<&str>,
        value: impl Display,
    ) {
        let text = &mut *self.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(le.map(|le| ("le", le))) {
            text.push(before);
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value);
            text.push('"');
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        let _ = writeln!(text, "{end} {value}");
    }
}

/// A label's value may hold anything but three characters that would end it.
fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_a_head_and_a_line_a_sample() {
        let mut text = Exposition::default();
        let mut frames = text.family("wharf_frames_total", Kind::Counter, "Frames.");
        frames.sample(&[("port", "web"), ("reason", "a\\b\"c\nd")], 7);
        text.single("wharf_ports", Kind::Gauge, "Ports.", 2);
        assert_eq!(
            text.into_text(),
            "# HELP wharf_frames_total Frames.\n# TYPE wharf_frames_total counter\n\
             wharf_frames_total{port=\"web\",reason=\"a\\\\b\\\"c\\nd\"} 7\n\
             # HELP wharf_ports Ports.\n# TYPE wharf_ports gauge\nwharf_ports 2\n"
        );
    }

    #[test]
    fn classes_of_a_histogram_hold_the_smaller_ones_too() {
        let mut text = Exposition::default();
        let classes = [(1, 5), (3, 2), (7, 1)];
        let mut sizes = text.family("wharf_batch_frames", Kind::Histogram, "Sizes.");
        sizes.histogram(&[("worker", "0")], &classes, 16);
        let text = text.into_text();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "wharf_batch_frames_bucket{worker=\"0\",le=\"1\"} 5",
                "wharf_batch_frames_bucket{worker=\"0\",le=\"3\"} 7",
                "wharf_batch_frames_bucket{worker=\"0\",le=\"+Inf\"} 8",
                "wharf_batch_frames_sum{worker=\"0\"} 16",
                "wharf_batch_frames_count{worker=\"0\"} 8",
            ]
        );
    }
}

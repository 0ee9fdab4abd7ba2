//! All figures beside each other.

use super::shape::{Figures, Shape};
use std::fmt::Write as _;

/// A column for each contender, a row for each shape.
#[derive(Debug, Default)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Vec<(Shape, Figures)>)>,
    missing: Vec<String>,
}

impl Table {
    /// Notes a contender that could not be started.
    pub(crate) fn missing(&mut self, name: &str, why: &str) {
        self.missing.push(format!("{name} was not measured: {why}"));
    }

    /// Notes a figure; none for a shape that the contender does not have.
    pub(crate) fn put(&mut self, name: &'static str, shape: Shape, figures: Option<Figures>) {
        let Some(figures) = figures else { return };
        if let Some(why) = &figures.failure {
            self.missing.push(format!("{name}, {shape}: {why}"));
        }
        match self.columns.iter_mut().find(|(known, _)| *known == name) {
            Some((_, cells)) => cells.push((shape, figures)),
            None => self.columns.push((name, vec![(shape, figures)])),
        }
    }

    /// As Markdown.
    pub(crate) fn text(&self, shapes: &[Shape]) -> String {
        let mut out = String::from(
            "Processor seconds of the server per million events or calls, rate, p50/p99 in us; idle: memory a session.\n\n",
        );
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let rule = "---|".repeat(names.len() + 1);
        // Writing to a string does not fail.
        writeln!(out, "| shape | {} |\n|{rule}", names.join(" | ")).ok();
        for shape in shapes {
            let cell = |cells: &Vec<(Shape, Figures)>| {
                let found = cells.iter().find(|(known, _)| known == shape);
                found.map_or_else(|| "-".to_owned(), |(_, figures)| figures.cell())
            };
            let cells: Vec<String> = self.columns.iter().map(|(_, cells)| cell(cells)).collect();
            writeln!(out, "| {shape} | {} |", cells.join(" | ")).ok();
        }
        for line in &self.missing {
            writeln!(out, "\n{line}").ok();
        }
        out
    }
}

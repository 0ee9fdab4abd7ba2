//! What scenarios found, as a table.

use std::fmt;

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Good,
    /// Not as it should; why.
    Failed(String),
    /// This machine cannot do it; why.
    Skipped(String),
}

/// A line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number in the list of faults.
    pub id: String,
    /// What was done.
    pub fault: String,
    /// What was measured.
    pub figures: String,
    /// What was to be reached.
    pub target: String,
    /// Whether it was.
    pub verdict: Verdict,
}

/// Lines, printed as a Markdown table.
#[derive(Debug, Default)]
pub struct Table(pub Vec<Row>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| id | fault | figures | target | verdict |\n|---|---|---|---|---|")?;
        for row in &self.0 {
            let verdict = match &row.verdict {
                Verdict::Good => "ok".to_owned(),
                Verdict::Failed(why) => format!("FAILED: {}", one_line(why)),
                Verdict::Skipped(why) => format!("SKIPPED: {}", one_line(why)),
            };
            let Row { id, fault, figures, target, .. } = row;
            writeln!(f, "| {id} | {fault} | {figures} | {target} | {verdict} |")?;
        }
        Ok(())
    }
}

fn one_line(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/");
    match line.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{} …", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_a_line_for_each_row() {
        let row = |verdict| Row {
            id: "N1".into(),
            fault: "split".into(),
            figures: "3 s".into(),
            target: "≤ 30 s".into(),
            verdict,
        };
        let text =
            Table(vec![row(Verdict::Good), row(Verdict::Failed("a\n|b".into()))]).to_string();
        assert_eq!(text.lines().count(), 4);
        assert!(text.ends_with("| N1 | split | 3 s | ≤ 30 s | FAILED: a /b |\n"), "{text}");
    }
}

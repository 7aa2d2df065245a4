//! Tables as kubectl prints them: upper-case headers, three spaces between columns, no borders.

/// How a column stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// The whole table. An empty cell prints as `<none>`.
    pub(crate) fn render(&self, headers: bool) -> String {
        let header: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let shown = |cell: &str| if cell.is_empty() { "<none>".to_owned() } else { cell.to_owned() };
        let mut lines: Vec<Vec<String>> = Vec::new();
        if headers {
            lines.push(header);
        }
        lines.extend(self.rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()));
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|index| {
                lines
                    .iter()
                    .filter_map(|line| line.get(index))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for line in &lines {
            let mut cells = Vec::new();
            for ((cell, width), (_, align)) in line.iter().zip(&widths).zip(&self.columns) {
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                cells.push(match align {
                    Align::Left => format!("{cell}{pad}"),
                    Align::Right => format!("{pad}{cell}"),
                });
            }
            text.push_str(cells.join("   ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// A word of state in its colour.
pub(crate) fn paint(word: &str, colored: bool) -> String {
    let code = match word.trim() {
        "ok" | "Established" | "True" | "announced" => "32",
        "warn" | "Audit" | "Drained" | "Connect" | "Active" | "OpenSent" | "OpenConfirm" => "33",
        "FAIL" | "Idle" | "PolicyRejected" | "NodesFailed" | "AddressRequestFailed" | "not announced" => "31",
        _ => return word.to_owned(),
    };
    if colored { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_prints_as_none() {
        let mut table = Table::new(&[("NODE", Align::Left), ("PODS", Align::Right), ("WHY", Align::Left)]);
        table.row(vec!["worker-12".into(), "2".into(), String::new()]);
        table.row(vec!["a".into(), "1,200".into(), "x".into()]);
        assert_eq!(
            table.render(true),
            "NODE         PODS   WHY\nworker-12       2   <none>\na           1,200   x\n"
        );
    }
}

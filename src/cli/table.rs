use std::fmt;

/// Text in columns, each as wide as its widest cell, under their names.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Vec<(&'static str, String)>>,
}

const GAP: usize = 2;

impl Table {
    /// Adds a row. All rows have the same columns.
    pub(super) fn push(&mut self, row: Vec<(&'static str, String)>) {
        self.rows.push(row);
    }

    /// In characters.
    pub(super) fn width(&self) -> usize {
        let widths = self.widths();
        widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let wide = |(name, value): &(&str, String)| name.len().max(value.chars().count());
        (0..columns).map(|column| cells(column).map(wide).max().unwrap_or_default()).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            padded.collect::<Vec<_>>().join(&" ".repeat(GAP))
        };
        if let Some(first) = self.rows.first() {
            writeln!(f, "{}", line(&mut first.iter().map(|(name, _)| *name)).trim_end())?;
        }
        for row in &self.rows {
            writeln!(f, "{}", line(&mut row.iter().map(|(_, value)| value.as_str())).trim_end())?;
        }
        Ok(())
    }
}

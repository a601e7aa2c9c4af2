//! Columns aligned with spaces, as Go's `tabwriter` does with docker's settings.

use std::fmt;

/// Columns are at least this wide.
const MINIMUM_WIDTH: usize = 10;
/// Spaces between the widest cell and the next column.
const PADDING: usize = 3;

/// Lines of tab-separated cells.
#[derive(Debug)]
pub struct Table {
    lines: Vec<Vec<String>>,
    minimum_width: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_minimum_width(MINIMUM_WIDTH)
    }
}

impl Table {
    /// An empty table whose columns are at least this wide.
    #[must_use]
    pub fn with_minimum_width(minimum_width: usize) -> Self {
        Self {
            lines: Vec::new(),
            minimum_width,
        }
    }

    /// Adds a line; cells are separated by tabs. Text with line ends adds several.
    pub fn push_line(&mut self, text: &str) {
        for line in text.split('\n') {
            self.lines
                .push(line.split('\t').map(str::to_owned).collect());
        }
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for line in &self.lines {
            // The last cell of a line ends no column.
            for (index, cell) in line.iter().rev().skip(1).rev().enumerate() {
                let width = cell.chars().count() + PADDING;
                match widths.get_mut(index) {
                    Some(known) => *known = width.max(*known),
                    None => widths.push(width.max(self.minimum_width)),
                }
            }
        }
        widths
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for line in &self.lines {
            let last = line.len().saturating_sub(1);
            for (index, cell) in line.iter().enumerate() {
                match widths.get(index) {
                    Some(width) if index < last => write!(f, "{cell:<width$}")?,
                    _ => f.write_str(cell)?,
                }
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns() {
        let mut table = Table::default();
        table.push_line("A\tLONG HEADER\tC");
        table.push_line("value of é\t1\tx\ty");
        assert_eq!(
            table.to_string(),
            "A            LONG HEADER   C\nvalue of é   1             x         y\n"
        );
    }
}

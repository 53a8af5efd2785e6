//! Aligned columns without lines, so that they can be read, cut and grepped.

use comfy_table::{CellAlignment, ContentArrangement, presets};

use super::line;
use crate::failure::Failure;

/// Rows under headings.
pub struct Table {
    inner: comfy_table::Table,
    columns: usize,
    rows: usize,
}

impl Table {
    /// Headings; those that begin with `>` are aligned to the right.
    pub fn new(headings: &[&str]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        inner.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
        for (index, heading) in headings.iter().enumerate() {
            let Some(column) = inner.column_mut(index) else { continue };
            let padding = if index == 0 { (0, 1) } else { (1, 1) };
            column.set_padding(padding);
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { inner, columns: headings.len(), rows: 0 }
    }

    /// One row; an empty cell shows as a dash.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns, "every heading has a cell");
        self.rows += 1;
        self.inner
            .add_row(cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { one_line(&cell) }));
    }

    /// Prints it; or says that there is nothing.
    pub fn print(&self, nothing: &str) -> Result<(), Failure> {
        if self.rows == 0 {
            eprintln!("{nothing}");
            return Ok(());
        }
        self.inner.lines().try_for_each(|row| line(row.trim_end()))
    }
}

/// What others wrote must not move the cursor or break a row.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

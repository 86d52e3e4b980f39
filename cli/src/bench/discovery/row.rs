//! What a section found.

use serde_json::{Value, json};

use super::Section;

/// A section's figures.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) section: Section,
    /// By name, for programs.
    pub(super) figures: Value,
    /// In words, for people.
    pub(super) said: String,
    /// What must hold, and whether it does; one entry per budget.
    pub(super) budgets: Vec<Budget>,
    /// What was measured is complete.
    pub(super) right: bool,
    /// Server and devices had a core each.
    pub(super) pinned: bool,
}

/// A figure and the most it may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// The figure's name.
    pub(super) of: &'static str,
    pub(super) at_most: f64,
    pub(super) is: f64,
}

impl Budget {
    pub(super) const fn new(of: &'static str, is: f64, at_most: f64) -> Self {
        Self { of, at_most, is }
    }

    fn holds(&self) -> bool {
        self.is <= self.at_most
    }
}

impl Row {
    /// Whether every budget holds.
    pub(super) fn is_within(&self) -> bool {
        self.budgets.iter().all(Budget::holds)
    }

    /// One line for programs.
    pub(super) fn json(&self) -> Value {
        let mut line = json!({
            "event": "section",
            "bench": "discovery",
            "section": self.section.name(),
        });
        if let (Value::Object(line), Value::Object(figures)) = (&mut line, &self.figures) {
            line.extend(figures.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        let at_most = |budget: &Budget| (budget.of.to_owned(), budget.at_most.into());
        line["budget"] = Value::Object(self.budgets.iter().map(at_most).collect());
        line["within_budget"] = self.is_within().into();
        line["pinned"] = self.pinned.into();
        line["ok"] = self.right.into();
        line
    }

    /// One line for people.
    pub(super) fn cells(&self) -> [String; 4] {
        let budgets = self.budgets.iter().map(|budget| format!("{} ≤ {}", budget.of, budget.at_most));
        let verdict = match (self.right, self.is_within()) {
            (false, _) => "NOT RIGHT",
            (true, false) => "OVER",
            (true, true) => "within",
        };
        let budgets = budgets.collect::<Vec<_>>().join("\n");
        [self.section.name().to_owned(), self.said.clone(), budgets, verdict.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_does_not_hold_is_seen_and_a_line_has_the_figures() {
        let mut row = Row {
            section: Section::Cold,
            figures: json!({"registered_ms": 11_000}),
            said: "11 s".into(),
            budgets: vec![Budget::new("registered_ms", 11_000.0, 11_000.0)],
            right: true,
            pinned: true,
        };
        assert_eq!(row.cells()[3], "within");
        let line = row.json();
        assert_eq!(
            (&line["registered_ms"], &line["budget"]["registered_ms"]),
            (&11_000.into(), &11_000.0.into())
        );
        row.budgets.push(Budget::new("drops", 1.0, 0.0));
        assert_eq!((row.is_within(), row.json()["within_budget"].clone()), (false, false.into()));
        row.right = false;
        assert_eq!(row.cells()[3], "NOT RIGHT");
    }
}

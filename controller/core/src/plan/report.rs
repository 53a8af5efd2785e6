//! What people are told: why a copy is where it is, what found no room (in the words of `obstacle`), how a rollout goes.

use super::obstacle::Unplaced;
use super::score::{Choice, Why};
use crate::effect::{Effect, EventKind};
use crate::ids::AppId;
use crate::model::command::{Change, Command};
use crate::observe::replica::{Placed, Replica};
use crate::reason::{Reason, count};
use crate::turn::{About, Scene, Turn};
use crate::units::{Millis, Permille};

impl Scene<'_> {
    /// Why a copy is where it is.
    pub fn placed_reason(&self, replica: &Replica) -> Reason {
        match &replica.placed {
            Placed::Chosen(choice) => self.choice_reason(choice),
            Placed::Told(reason) => reason.as_ref().clone(),
        }
    }

    /// A choice in words, with every figure that it rested on.
    pub fn choice_reason(&self, choice: &Choice) -> Reason {
        let (code, cause) = match choice.why {
            Why::Wanted => ("least_loaded", "more copies were wanted"),
            Why::Replacement => ("replacement", "in place of a copy on a lost node"),
            Why::TakeOver => ("take_over", "to take over from an older copy"),
        };
        let Choice { rank, load, age, runner_up, .. } = choice;
        // Put together by hand: a burst makes 100,000 of these, and formatting took longer than choosing.
        let name = self.node_name(rank.node);
        let mut text = String::with_capacity(128 + name.len());
        text.push_str(cause);
        text.push_str("; ");
        text.push_str(&name);
        text.push_str(" had load ");
        push_permille(&mut text, *load);
        text.push_str(" (read ");
        push_millis(&mut text, *age);
        text.push_str(" ago)");
        if rank.same_app > 0 {
            text.push_str(" and ");
            push_number(&mut text, u64::from(rank.same_app));
            text.push_str(if rank.same_app == 1 { " copy of this app" } else { " copies of this app" });
        }
        match runner_up {
            Some((node, load)) => {
                text.push_str(", next best ");
                text.push_str(&self.node_name(*node));
                text.push_str(" at ");
                push_permille(&mut text, *load);
            }
            None => text.push_str(", no other node could take it"),
        }
        if rank.skew > 0 {
            text.push_str("; the spread is exceeded by ");
            push_number(&mut text, u64::from(rank.skew));
            text.push_str(", as its rule allows");
        }
        Reason::new(code, text)
    }
}

impl Turn<'_> {
    /// Records what found no room; people hear of it when it is news.
    pub fn report_unplaced(&mut self, app: AppId, missing: u32) {
        if missing == 0 {
            self.world.unplaced.remove(&app);
            if let Some(seen) = self.world.apps.get_mut(&app) {
                seen.unplaced = None;
            }
            return;
        }
        let Some(known) = self.model.apps.get(&app) else { return };
        let spec = known.current.spec.as_ref();
        let mut classes = std::mem::take(&mut self.world.classes);
        let scene = self.scene();
        let (key, class) = classes.take(&scene, spec, None);
        let obstacles = scene.obstacles(&scene.request(app, spec, &class, false), &class);
        classes.keep(key, class);
        self.world.classes = classes;
        let text = obstacles.text(spec, missing);
        let facts = obstacles.facts(&self.scene(), spec);
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        let before = seen.unplaced.take();
        let news = before.as_ref().is_none_or(|before| before.text != text);
        let since = before.map_or(self.now, |before| before.since);
        let refused = obstacles.counts();
        seen.unplaced = Some(Unplaced { count: missing, since, refused, text: text.clone(), facts });
        self.world.unplaced.insert(app);
        if news {
            self.world.tell_waiting(app);
            self.tell(EventKind::Unplaced, About::app(app), Reason::new("no_room", text));
        }
    }

    /// How the takeover by a new revision goes, and the verdict when it is done.
    pub fn report_rollout(&mut self, app: AppId) {
        let Some(known) = self.model.apps.get(&app) else { return };
        let wanted = self.scene().wanted(app);
        let number = known.current.number;
        let good = known.last_good.as_ref().is_some_and(|good| good.number == number);
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        let tally = seen.tally;
        let since = known.current.runs_since;
        let replicas = &self.world.replicas;
        let outdated = || seen.replicas.values().any(|slot| replicas.at(*slot).revision < since);
        if tally.stale > 0 && !seen.rolling && outdated() {
            seen.rolling = true;
            let text =
                format!("{} to be replaced by ones of revision {number}", count(tally.stale, "copy is", "copies are"));
            self.tell(EventKind::Rollout, About::app(app), Reason::new("rollout_begins", text));
        } else if tally.stale == 0 && seen.rolling && tally.fresh_ready >= wanted {
            seen.rolling = false;
            let text = format!("revision {number} has taken over with {} ready", count(wanted, "copy", "copies"));
            self.tell(EventKind::Rollout, About::app(app), Reason::new("rollout_done", text));
        }
        let proved = wanted > 0 && tally.stale == 0 && tally.fresh_ready >= wanted && !good;
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        if proved && seen.verdict < number.0 {
            seen.verdict = number.0;
            let change = Change::RecordGood { app, revision: number };
            let command = Command { at: self.now, by: "leader".to_owned(), key: String::new(), change };
            self.effects.push(Effect::Propose { token: None, command });
        }
    }
}

/// As its `Display` says it, but at once.
fn push_number(text: &mut String, number: u64) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

fn push_permille(text: &mut String, share: Permille) {
    push_number(text, u64::from(share.0));
    text.push('‰');
}

fn push_millis(text: &mut String, length: Millis) {
    match length.0 {
        // Most readings are younger than a second; the rest is rare enough to be formatted.
        millis @ 0..1_000 => {
            push_number(text, millis);
            text.push_str(" ms");
        }
        _ => text.push_str(&length.to_string()),
    }
}

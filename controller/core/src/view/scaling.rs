//! The whole computation of an elastic app's count: inputs with their age, each policy's figure, what capped it, what is held, and when
//! it may fall.

use super::View;
use crate::autoscale::Elasticity;
use crate::ids::AppId;
use crate::model::spec::{Elastic, Policy};
use crate::observe::world::AppSeen;
use crate::reason::count;

impl View<'_> {
    /// Facts for "Why so many copies?".
    pub(super) fn explain_scaling(&self, id: AppId, bounds: &Elastic, facts: &mut Vec<String>) {
        let Some(seen) = self.app_seen(id) else { return };
        let Some(elastic) = &seen.elastic else { return };
        if bounds.policies.iter().any(Policy::by_requests) {
            facts.extend(self.request_facts(seen));
        }
        facts.extend(elastic.reading.figures.iter().map(|figure| format!("demand: {}", figure.text)));
        facts.push(bounds_fact(elastic, bounds));
        facts.extend(self.pace_fact(elastic, bounds));
        facts.extend(missing_fact(elastic));
        facts.push(self.window_fact(elastic, bounds));
    }

    fn request_facts(&self, seen: &AppSeen) -> Vec<String> {
        let (now, requests) = (self.now(), &seen.requests);
        let told: Vec<String> = requests
            .ingresses
            .iter()
            .filter(|(_, ingress)| ingress.held > 0 || !ingress.current)
            .map(|(node, ingress)| {
                let unheard = if ingress.current { "" } else { ", not heard since" };
                format!("{} at {} ({} ago{unheard})", ingress.held, self.node_name(*node), now - ingress.at)
            })
            .collect();
        let held = if told.is_empty() { "0".to_owned() } else { told.join(", ") };
        let ages = requests.oldest().map_or_else(String::new, |at| format!("; the oldest count is {} old", now - at));
        let ingresses = count(requests.ingresses.len() as u64, "ingress asks", "ingresses ask");
        let (copies, in_flight) = (seen.tally.alive(), seen.tally.in_flight);
        vec![
            format!("requests: {in_flight} in flight in {}, counted by their owners", count(copies, "copy", "copies")),
            format!("requests held: {held}; {ingresses} for it{ages}"),
        ]
    }

    fn pace_fact(&self, elastic: &Elasticity, bounds: &Elastic) -> Option<String> {
        let asked = elastic.reading.asked(bounds.spare).clamp(bounds.min, bounds.max);
        let rate = bounds.up.filter(|_| asked > elastic.wanted)?;
        let next = elastic.up.next(bounds.up).filter(|at| *at > self.now())?;
        Some(format!(
            "policy.up: at most {} within {}; on the way to {asked}, the next step in {}",
            count(rate.copies, "copy", "copies"),
            rate.per,
            next - self.now()
        ))
    }

    fn window_fact(&self, elastic: &Elasticity, bounds: &Elastic) -> String {
        let (now, limits) = (self.now(), &self.core.config().limits);
        let (largest, grace, wanted) = (elastic.window.largest(), bounds.idle_grace, elastic.wanted);
        let full = elastic.window.is_full(now, grace.max(limits.watch_least));
        let state = if full { "watched in full" } else { "not watched in full yet: the count cannot fall" };
        let begin = format!("window: at most {largest} needed within {grace} ({state})");
        if wanted <= bounds.min {
            return format!("{begin}; it cannot fall below policy.min, which is {}", bounds.min);
        }
        let by_window = elastic.window.below_at(wanted, grace, limits.window_buckets);
        let watched = elastic.window.full_at(grace.max(limits.watch_least));
        let paced = elastic.down.next(bounds.down).filter(|_| elastic.down.clone().allowed(now, bounds.down) == 0);
        let at = [by_window, watched, paced].into_iter().flatten().max().unwrap_or(now);
        match elastic.reading.asked(bounds.spare).clamp(bounds.min, bounds.max) >= wanted {
            true => format!("{begin}; it may fall {grace} after less than {wanted} are needed"),
            false if at > now => format!("{begin}; it may fall in {} if no more is needed until then", at - now),
            false => format!("{begin}; it falls when that is below {wanted}"),
        }
    }
}

fn bounds_fact(elastic: &Elasticity, bounds: &Elastic) -> String {
    let asked = elastic.reading.asked(bounds.spare);
    let largest = asked - bounds.spare.min(asked);
    let capped = match asked {
        over if over > bounds.max => format!("capped by policy.max, which is {}", bounds.max),
        under if under < bounds.min => format!("raised to policy.min, which is {}", bounds.min),
        _ => format!("between {} and {}", bounds.min, bounds.max),
    };
    format!("the largest asks for {largest}, and {} spare make {asked}: {capped}", bounds.spare)
}

fn missing_fact(elastic: &Elasticity) -> Option<String> {
    let missing = elastic.reading.missing;
    if elastic.reading.unsure {
        return Some("an ingress is about to tell its counts: nothing falls until it has".to_owned());
    }
    let sources = count(missing, "copy or ingress", "copies and ingresses");
    (missing > 0).then(|| format!("{sources} cannot be read at the moment: the count does not fall meanwhile"))
}

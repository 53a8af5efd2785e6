//! `bellows explain`.

use bellows_proto::operator::{ExplainRequest, ExplainResponse};
use clap::Args;
use serde_json::json;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output;

const AFTER: &str = "\
Examples:
  bellows explain web                    why so many copies, and what is in the way of more
  bellows explain 1-2-57                 why this copy is where it is, or why it ended
  bellows explain n1                     why this server takes copies, or takes none

JSON: {subject, explanations: [{question, answer, facts: []}]}";

/// Why is it as it is? The reasons that decisions were made with
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// An app's name, a replica's id or a node's name
    #[arg(value_name = "APP|REPLICA|NODE")]
    subject: String,
}

/// Asks and prints.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let request = ExplainRequest { tenant: globals.tenant.clone(), subject: arguments.subject };
    let answer = connection.ask(async |client| client.explain(request.clone()).await).await?;
    if globals.json() { output::json(&as_json(&answer)) } else { text(&answer) }
}

fn as_json(answer: &ExplainResponse) -> serde_json::Value {
    let explanations: Vec<_> = answer
        .explanations
        .iter()
        .map(|one| json!({ "question": one.question, "answer": one.answer, "facts": one.facts }))
        .collect();
    json!({ "subject": answer.subject, "explanations": explanations })
}

fn text(answer: &ExplainResponse) -> Result<(), Failure> {
    if answer.explanations.is_empty() {
        return output::line(&format!("Nothing was decided about {} yet.", answer.subject));
    }
    for one in &answer.explanations {
        output::line(&format!("{}\n  {}", one.question, one.answer))?;
        one.facts.iter().try_for_each(|fact| output::line(&format!("    - {fact}")))?;
    }
    Ok(())
}

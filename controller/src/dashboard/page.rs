//! `/`: one page. The frame is written here, the rows come with the live updates; both escape what they show.

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use maud::{DOCTYPE, Markup, html};

use super::Shared;
use crate::driver::Question;

pub(super) async fn page(State(shared): State<Shared>) -> Html<String> {
    // Without a driver the page still opens, and says that it has no connection.
    let cluster = shared.driver.ask(Question::Status).await.map(|status| status.cluster).unwrap_or_default();
    Html(frame(&cluster).into_string())
}

pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("page.css"))
}

pub(super) async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("page.js"))
}

fn frame(cluster: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Bellows: " (cluster) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/page.css";
                script src="/page.js" defer {}
            }
            body {
                header {
                    h1 { "Bellows " span id="cluster" { (cluster) } }
                    p id="status" role="status" { "connecting" }
                }
                noscript { p { "This page is drawn by its script. Without one, try " code { "bellows apps" } "." } }
                main {
                    (section("nodes", "Nodes", &["node", "load", "CPU", "memory", "copies", "state"]))
                    (section("apps", "Apps", &["app", "wanted", "ready", "starting", "stopping", "unplaced", "why"]))
                    (section("replicas", "Copies", &["copy", "app", "node", "state", "activity", "address", "why"]))
                    (section("events", "Events", &["when", "what", "app", "copy", "node", "why"]))
                }
            }
        }
    }
}

fn section(id: &str, title: &str, columns: &[&str]) -> Markup {
    html! {
        section aria-labelledby={ (id) "-title" } {
            h2 id={ (id) "-title" } { (title) " " small id={ (id) "-count" } {} }
            div.scroll tabindex="0" role="region" aria-labelledby={ (id) "-title" } {
                table id=(id) {
                    thead { tr { @for column in columns { th scope="col" { (column) } } } }
                    tbody {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn names_are_escaped() {
        let page = frame("<script>alert(1)</script>").into_string();
        assert!(page.contains("&lt;script&gt;alert(1)"));
        assert!(!page.contains("<script>alert"));
    }
}

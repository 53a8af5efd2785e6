//! The OCI runtime as its callers meet it: the real executable, bundles, and podman where it is installed. Root only; each test prints why it skips.

mod cases;
mod hooks;
mod life;
mod links;
mod place;
mod podman;
mod validation;

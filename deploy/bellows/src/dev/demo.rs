//! The demo of `dev --demo`: an image made of the running executable, and an app with a policy.

use std::path::{Path, PathBuf};

use bellows_proto::types::AppSpec;
use bellows_runtime::image::build::{BuildConfig, executable_with_libraries};
use bellows_runtime::image::{Digest, Store};

use crate::appfile;
use crate::failure::Failure;

/// Name of the app and of its image.
pub const NAME: &str = "demo";

/// Where it listens inside.
pub const PORT: u16 = 8080;

/// The app, as anybody would declare it.
const FILE: &str = include_str!("demo.yaml");

/// Makes the image from this program, so that the demo needs nothing that is not here.
pub fn build_image(store: &Store, program: &Path) -> bellows_runtime::image::Result<Digest> {
    let mut files = executable_with_libraries(program)?;
    if let Some(own) = files.first_mut() {
        own.path = PathBuf::from("/bellows");
    }
    let config = BuildConfig {
        entrypoint: vec!["/bellows".to_owned(), "demo-app".to_owned()],
        env: vec![format!("PORT={PORT}")],
        user: "1000:1000".to_owned(),
        exposed_ports: vec![format!("{PORT}/tcp")],
        ..BuildConfig::default()
    };
    store.build(NAME, &files, &config)
}

/// What to declare.
pub fn app(tenant: &str) -> Result<AppSpec, Failure> {
    let apps = appfile::parse("demo.yaml", FILE, tenant);
    let one = apps.map(|mut apps| apps.pop());
    let wrong = |problems| Failure::failed("the demo's app file, part of this executable, is wrong").problems(problems);
    one.map_err(wrong)?.ok_or_else(|| wrong(Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellows_proto::types::app_spec::Scale;
    use bellows_proto::types::policy::Reading;

    #[test]
    fn one_burning_copy_is_worth_the_maximum() {
        let spec = app("default").expect("the file is right");
        let Some(Scale::Elastic(elastic)) = spec.scale else { panic!("the load decides: {spec:?}") };
        let Some(Reading::Cpu(cpu)) = elastic.policies[0].reading else { panic!("by CPU: {elastic:?}") };
        assert_eq!((elastic.min, 1000 / cpu.target_permille), (1, elastic.max));
        assert_eq!((spec.name.as_str(), spec.image.as_str(), spec.ports[0].port), (NAME, NAME, u32::from(PORT)));
    }

    #[test]
    fn the_image_runs_this_program() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path()).expect("an empty folder");
        let program = std::env::current_exe().expect("this test runs");
        let digest = build_image(&store, &program).expect("an executable with libraries is an image");
        assert_eq!(store.resolve(NAME).expect("it has its name"), digest);
    }
}

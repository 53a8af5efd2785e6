//! Compiles the four languages (and the words they share) without a system protoc.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["types", "operator", "node", "member", "log"].map(|name| format!("bellows/{name}.proto"));
    let descriptors = protox::compile(&files, ["."])?;
    let descriptor_path = PathBuf::from(std::env::var("OUT_DIR")?).join("bellows.bin");
    std::fs::write(&descriptor_path, prost_encode(&descriptors))?;
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=bellows");
    Ok(())
}

fn prost_encode(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}

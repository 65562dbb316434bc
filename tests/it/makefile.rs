//! The Makefile and `make/*.mk` work with any Cargo target directory.

use std::process::Command;

use crate::world::flask::in_repository;

#[test]
fn no_target_runs_what_cargo_builds_by_a_path_of_its_own() {
    let mut makefiles = vec![in_repository("Makefile")];
    let included = std::fs::read_dir(in_repository("make")).unwrap();
    makefiles.extend(included.map(|entry| entry.unwrap().path()));
    for makefile in makefiles {
        let text = std::fs::read_to_string(&makefile).unwrap();
        for path in ["target/debug", "target/release"] {
            assert!(!text.contains(path), "{}: $(BUILT), not {path}", makefile.display());
        }
    }
    for (elsewhere, expected) in [
        ("/elsewhere", "/elsewhere/debug/examples/demo --store files".to_owned()),
        ("here", format!("{}/debug/examples/demo", in_repository("here").display())),
    ] {
        let mut make = Command::new("make");
        make.arg("--dry-run").arg("--directory").arg(in_repository("")).arg("demo");
        // `make test` passes its flags to its children.
        make.env_remove("MAKEFLAGS").env_remove("MFLAGS").env("CARGO_TARGET_DIR", elsewhere);
        let output = make.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let commands = String::from_utf8(output.stdout).unwrap();
        assert!(commands.contains(&expected), "{expected}: {commands}");
    }
}

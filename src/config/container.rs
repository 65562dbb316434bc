//! Memory limit of the container, from the process's control groups.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Values from here on mean no limit: cgroup v1 has a large number for that.
const NONE: usize = 1 << 62;

/// Memory limit in bytes: the smallest of the process's control group and its parents, from `memory.max`
/// (cgroup v2) or `memory.limit_in_bytes` (v1).
pub(super) fn memory_limit() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    memory_limit_in(Path::new("/sys/fs/cgroup"), &groups)
}

/// The same below `mount`. `groups`: lines `ID:CONTROLLERS:PATH` of `/proc/self/cgroup` (cgroups(7)).
fn memory_limit_in(mount: &Path, groups: &str) -> Option<usize> {
    groups.lines().filter_map(|line| limit_of(mount, line)).min()
}

fn limit_of(mount: &Path, line: &str) -> Option<usize> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (mounts, file): (&[PathBuf], _) = if controllers.is_empty() {
        (&[mount.to_owned(), mount.join("unified")], "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        (&[mount.join("memory")], "memory.limit_in_bytes")
    } else {
        return None;
    };
    let limit = |folder: &Path| -> Option<usize> {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        text.trim().parse().ok().filter(|limit| *limit < NONE)
    };
    // A container may see its own group as the root, regardless of the path in `/proc/self/cgroup`.
    let groups = |mount: &PathBuf| {
        let group = mount.join(path.trim_start_matches('/'));
        group.ancestors().take_while(|at| at.starts_with(mount)).filter_map(limit).min()
    };
    mounts.iter().filter_map(groups).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup mount with these files.
    fn mount(files: &[(&str, &str)]) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = mount.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        mount
    }

    #[test]
    fn the_smallest_limit_of_the_process_and_its_parents_applies() {
        let v2 = &[
            ("kubepods/memory.max", "1000000\n"),
            ("kubepods/pod/memory.max", "268435456\n"),
            ("kubepods/pod/main/memory.max", "max\n"),
        ];
        let v1 = &[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/docker/a/memory.limit_in_bytes", "268435456\n"),
        ];
        let v1_with_its_own_root = &[("memory/memory.limit_in_bytes", "268435456\n")];
        let hybrid = &[("unified/a/memory.max", "max"), ("memory/a/memory.limit_in_bytes", "4096")];
        let cases: [(&[_], _, _); 8] = [
            (v2, "0::/kubepods/pod/main\n", Some(1_000_000)),
            (&v2[1..], "0::/kubepods/pod/main\n", Some(268_435_456)),
            (&v2[2..], "0::/kubepods/pod/main\n", None),
            (&[("memory.max", "268435456")], "0::/\n", Some(268_435_456)),
            (v1, "5:cpu:/\n4:hugetlb,memory:/docker/a\n0::/\n", Some(268_435_456)),
            (v1, "4:memory:/elsewhere\n", None),
            (v1_with_its_own_root, "4:memory:/docker/0123\n", Some(268_435_456)),
            (hybrid, "4:memory:/a\n0::/a\n", Some(4096)),
        ];
        for (files, groups, limit) in cases {
            let mount = mount(files);
            assert_eq!(memory_limit_in(mount.path(), groups), limit, "{groups:?} {files:?}");
        }
        assert_eq!(memory_limit_in(Path::new("/does/not/exist"), "0::/\nodd"), None);
    }
}

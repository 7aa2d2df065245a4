use std::os::unix::fs::PermissionsExt as _;

use super::*;

struct Host {
    root: tempfile::TempDir,
    installer: Installer,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let plugin = root.path().join("image-manx-cni");
        std::fs::write(&plugin, b"plugin 1").unwrap();
        let directories = Directories {
            cni_bin_dir: Some(root.path().join("bin")),
            cni_conf_dir: Some(root.path().join("net.d")),
        };
        let installer = Installer { directories, plugin, socket: SOCKET_PATH.into() };
        Self { root, installer }
    }

    fn configuration(&self) -> PathBuf {
        self.root.path().join("net.d").join(CONFIGURATION)
    }

    fn read(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.configuration()).unwrap()).unwrap()
    }

    fn types(&self) -> Vec<String> {
        let read = self.read();
        let plugins = read["plugins"].as_array().unwrap();
        plugins.iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn a_first_look_writes_both_and_a_second_nothing() {
    let host = Host::new();
    let plugin = host.root.path().join("bin/manx-cni");
    let written = host.installer.look().unwrap();
    assert_eq!(written, [Found::Written(plugin.clone()), Found::Written(host.configuration())]);
    assert_eq!(std::fs::metadata(&plugin).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(host.installer.look().unwrap(), []);
    assert_eq!(host.types(), ["manx-cni"], "the host has no other plugin");
    assert_eq!(host.read()["cniVersion"], "1.0.0");
    // Nothing else lies about.
    for directory in ["bin", "net.d"] {
        assert_eq!(std::fs::read_dir(host.root.path().join(directory)).unwrap().count(), 1);
    }
}

#[test]
fn what_is_ours_follows_the_version_and_the_plugins_of_the_host() {
    let host = Host::new();
    host.installer.look().unwrap();
    std::fs::write(&host.installer.plugin, b"plugin 2").unwrap();
    for chained in ["portmap", "bandwidth"] {
        std::fs::write(host.root.path().join("bin").join(chained), b"").unwrap();
    }
    assert_eq!(host.installer.look().unwrap().len(), 2);
    assert_eq!(host.types(), ["manx-cni", "portmap", "bandwidth"]);
    assert_eq!(host.read()["plugins"][1]["capabilities"]["portMappings"], true);
    assert_eq!(std::fs::read(host.root.path().join("bin/manx-cni")).unwrap(), b"plugin 2");
    std::fs::remove_file(host.configuration()).unwrap();
    assert_eq!(host.installer.look().unwrap(), [Found::Written(host.configuration())]);
}

#[test]
fn a_persons_edit_stays_and_anothers_file_is_put_aside() {
    let host = Host::new();
    host.installer.look().unwrap();
    let mut edited = host.read();
    edited["plugins"].as_array_mut().unwrap().push(json!({"type": "tuning"}));
    std::fs::write(host.configuration(), edited.to_string()).unwrap();
    assert_eq!(host.installer.look().unwrap(), [Found::Edited(host.configuration())]);
    assert_eq!(host.types(), ["manx-cni", "tuning"]);

    let other = r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge"}]}"#;
    for foreign in [other, "no JSON"] {
        std::fs::write(host.configuration(), foreign).unwrap();
        let aside = host.configuration().with_extension("foreign");
        assert_eq!(
            host.installer.look().unwrap(),
            [Found::PutAside(aside.clone()), Found::Written(host.configuration())]
        );
        assert_eq!(std::fs::read_to_string(aside).unwrap(), foreign);
        assert_eq!(host.types(), ["manx-cni"]);
    }
}

#[test]
fn a_network_that_comes_first_is_said_and_left() {
    let host = Host::new();
    host.installer.look().unwrap();
    let before = host.configuration().with_file_name("05-other.conf");
    std::fs::write(&before, "{}").unwrap();
    std::fs::write(host.configuration().with_file_name("00-readme.txt"), "").unwrap();
    std::fs::write(host.configuration().with_file_name("20-later.conflist"), "{}").unwrap();
    assert_eq!(host.installer.look().unwrap(), [Found::Before(before.clone())]);
    assert!(before.exists());
}

#[test]
fn removal_takes_what_is_ours_and_may_be_repeated() {
    let host = Host::new();
    host.installer.look().unwrap();
    assert_eq!(remove(&host.installer.directories).unwrap().len(), 2);
    assert_eq!(remove(&host.installer.directories).unwrap(), Vec::<PathBuf>::new());
    std::fs::write(host.configuration(), "{}").unwrap();
    assert_eq!(remove(&host.installer.directories).unwrap(), Vec::<PathBuf>::new());
    assert!(host.configuration().exists(), "another's stays");
}

#[test]
fn directories_that_are_not_given_get_nothing() {
    let host = Host::new();
    let installer = Installer { directories: Directories::default(), ..host.installer.clone() };
    assert_eq!(installer.look().unwrap(), []);
    assert_eq!(std::fs::read_dir(host.root.path()).unwrap().count(), 1);
}

use felix_kernel::sysctl::{Record, Sysctl, host_settings};

use crate::namespace::{Namespace, connect};

#[test]
fn host_settings_are_made_recorded_and_put_back() {
    let (host, peer) = (Namespace::new(), Namespace::new());
    connect(&host, &peer, 1);
    host.sh("echo 0 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/e1/rp_filter");
    host.run(|| {
        let sysctl = Sysctl::default();
        let settings = host_settings(&["e1", "absent0"]);
        let before: Vec<_> = settings.iter().map(|setting| sysctl.read(&setting.key).ok()).collect();
        let mut record = Record::new();
        let problems = sysctl.apply(&settings, &mut record);
        assert!(problems.is_empty(), "{problems:?}");
        for setting in settings.iter().filter(|setting| !setting.key.contains("absent0")) {
            assert_eq!(sysctl.read(&setting.key).unwrap(), setting.value, "{}", setting.key);
        }
        assert_eq!(record.get("net/ipv4/conf/e1/rp_filter").map(String::as_str), Some("1"));
        let first = record.clone();
        sysctl.apply(&settings, &mut record);
        assert_eq!(record, first, "a second apply does not take its own work for the host's");
        assert!(sysctl.restore(&mut record).is_empty());
        assert!(record.is_empty());
        let after: Vec<_> = settings.iter().map(|setting| sysctl.read(&setting.key).ok()).collect();
        assert_eq!(after, before);
    });
}

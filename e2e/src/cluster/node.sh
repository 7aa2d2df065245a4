#!/usr/bin/env bash
# One node: process 1 of its own pid, mount, uts, ipc and cgroup namespaces inside the node's network namespace.
# Everything on the node is below it, so that killing it is a power cut: processes, mounts and pods' namespaces go.
#
#   node.sh enter SETTINGS   puts itself into the node's cgroups and becomes the parent of process 1
#   node.sh init SETTINGS    is process 1
#
# SETTINGS is a shell file that Rust writes: name, home (of the cluster), bin (of Kubernetes), kubelet and proxy (flags).
set -eu
. "$2"

# The node gets a group of its own, which is the root of all groups that it sees.
enter_groups() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then enter_v2; else enter_v1; fi
}

enter_v1() {
    local controllers hierarchy root group
    while IFS=: read -r _ controllers _; do
        case $controllers in '') hierarchy=unified ;; name=*) hierarchy=${controllers#name=} ;; *) hierarchy=$controllers ;; esac
        root=/sys/fs/cgroup/$hierarchy
        [ -d "$root" ] || continue
        for group in "$root/manx-cluster" "$root/manx-cluster/$name"; do
            mkdir -p "$group"
            # A new cpuset is empty, and nothing can enter it.
            [ "$hierarchy" != cpuset ] || for file in cpuset.cpus cpuset.mems; do cat "${group%/*}/$file" >"$group/$file"; done
        done
        # Left by a power cut; the kubelet would wait for them. What still holds a process stays.
        find "$group" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true
        echo $$ >"$group/cgroup.procs"
    done </proc/self/cgroup
}

# A group of version 2 that passes controllers on may hold no process itself. So process 1 goes to a group below the
# node's, and its parent, which is this process, to one beside it, once the node's own view has begun.
enter_v2() {
    local group=/sys/fs/cgroup/manx-cluster keeper=$$ entered=$home/nodes/$name/entered
    # Left by a power cut. What still holds a process stays, and mkdir takes it as it is.
    find "$group/$name" -depth -type d -exec rmdir {} + 2>/dev/null || true
    rm -f "$entered"
    mkdir -p "$group/$name" "$group/keepers"
    pass_on /sys/fs/cgroup
    pass_on "$group"
    echo $$ >"$group/$name/cgroup.procs"
    # Not a child of ours: the only one is to be process 1.
    (
        (
            until [ -e "$entered" ]; do sleep 0.02; done
            echo "$keeper" >"$group/keepers/cgroup.procs"
        ) &
    )
}

# pass_on GROUP: all of its controllers are there for the groups below it.
pass_on() {
    local controller
    for controller in $(cat "$1/cgroup.controllers"); do echo "+$controller" >"$1/cgroup.subtree_control"; done
}

mount_groups() {
    if [ "$(wc -l </proc/self/cgroup)" = 1 ]; then mount_v2; else mount_v1; fi
}

mount_v1() {
    local controllers
    mount -t tmpfs cgroup /sys/fs/cgroup
    cut -d: -f2 /proc/self/cgroup | while read -r controllers; do
        case $controllers in
        '') mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
        name=*) mkdir -p "/sys/fs/cgroup/${controllers#name=}" && mount -t cgroup -o "none,$controllers" cgroup "/sys/fs/cgroup/${controllers#name=}" ;;
        *) mkdir -p "/sys/fs/cgroup/$controllers" && mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers" ;;
        esac
    done
}

mount_v2() {
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    : >"$home/nodes/$name/entered"
    mkdir /sys/fs/cgroup/init
    echo $$ >/sys/fs/cgroup/init/cgroup.procs
    # Processes outside the node's pid namespace are read as 0.
    while grep -q . /sys/fs/cgroup/cgroup.procs; do sleep 0.02; done
    pass_on /sys/fs/cgroup
}

# The node's own /etc, /opt, /var and /run: what a DaemonSet writes to a host path stays on this node. The cluster's
# files are at /run/cluster, wherever the checkout and the cache lie (under /var, perhaps).
mount_files() {
    local own=$home/nodes/$name part
    mkdir -p "$own"/{etc,etc-work,opt,opt-work} "$own"/var/{lib/kubelet,log,cache,tmp,spool}
    ln -sfn /run "$own/var/run"
    ln -sfn /run/lock "$own/var/lock"
    exec 3<"$home" 4<"$bin" 5<"$own/var"
    for part in etc opt; do mount -t overlay -o "lowerdir=/$part,upperdir=$own/$part,workdir=$own/$part-work" overlay "/$part"; done
    mount -t tmpfs -o mode=755 run /run
    mkdir -p /run/netns /run/lock /run/cluster/home /run/cluster/bin
    # -c: the descriptor is what is mounted, not the path that it had.
    mount -c --bind /proc/self/fd/3 /run/cluster/home
    mount -c --bind /proc/self/fd/4 /run/cluster/bin
    mount -c --bind /proc/self/fd/5 /var
    exec 3<&- 4<&- 5<&-
    # kubelet and Bidirectional mounts need a shared root.
    mount --make-rshared /
    echo "$name" >/etc/hostname
    : >/etc/resolv.conf
    mkdir -p /etc/cni/net.d /opt/cni/bin
    # Files, not links: a container that has /opt/cni/bin mounted can run them.
    for part in loopback portmap bandwidth ptp host-local; do
        [ -e "/opt/cni/bin/$part" ] || cp "/usr/lib/cni/$part" /opt/cni/bin/
    done
    if [ -e "$cluster/nodes/$name/cni.conflist" ]; then cp "$cluster/nodes/$name/cni.conflist" /etc/cni/net.d/10-ptp.conflist; fi
}

# supervise NAME COMMAND…: as systemd's Restart=always. NAME.stopped in the node's folder holds it back.
supervise() {
    local component=$1
    shift
    while :; do
        while [ -e "$cluster/nodes/$name/$component.stopped" ]; do sleep 0.1; done
        "$@" >>"$cluster/logs/$name/$component.log" 2>&1 &
        echo $! >"$cluster/nodes/$name/$component.pid"
        # However it ended, it is started again.
        wait $! || true
        sleep 0.5
    done
}

case $1 in
enter)
    enter_groups
    exec unshare --mount --uts --ipc --pid --cgroup --fork --mount-proc --kill-child=KILL --propagation private \
        bash "$0" init "$2"
    ;;
init)
    cluster=/run/cluster/home
    hostname "$name"
    umount -l /sys
    mount -t sysfs sysfs /sys
    mount_groups
    # Wanted by nobody here but a container that expects the mount; a kernel may have none.
    mount -t bpf bpf /sys/fs/bpf 2>/dev/null || true
    mount_files
    cd /
    # Another containerd than the machine's.
    PATH=$cluster/runtime:$PATH
    supervise containerd containerd --config "$cluster/containerd.toml" &
    until ctr version >/dev/null 2>&1; do sleep 0.05; done
    for archive in /run/cluster/bin/images/*.tar "$cluster"/images/*.tar; do
        [ ! -e "$archive" ] || ctr --namespace k8s.io images import --no-unpack "$archive" >>"$cluster/logs/$name/images.log" 2>&1
    done
    : >"$cluster/nodes/$name/images.imported"
    until [ -e "$cluster/api-ready" ]; do sleep 0.05; done
    # The flags are words without spaces.
    # shellcheck disable=SC2086,SC2154
    supervise kubelet /run/cluster/bin/kubelet $kubelet &
    # shellcheck disable=SC2086,SC2154
    [ -z "$proxy" ] || supervise kube-proxy /run/cluster/bin/kube-proxy $proxy &
    trap 'exit 0' TERM
    # Shims that lost their parent are reaped here.
    while :; do wait -n || sleep 1; done
    ;;
esac

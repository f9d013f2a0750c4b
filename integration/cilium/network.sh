# The node's device is one end of a cable to the outside, as Cilium wants it. Sourced by
# the node's PID 1.

# Socket load balancing goes to the cgroup of the node, not to the root, which is the
# machine's: all of the node is in it.
mkdir -p "$CGROUP/init" /run/cilium/cgroupv2
echo 0 >"$CGROUP/init/cgroup.procs"
mount --bind "$CGROUP" /run/cilium/cgroupv2
umount /sys/fs/bpf 2>/dev/null || true
mount -t bpf bpf /sys/fs/bpf
own kernel/timer_migration=0 kernel/unprivileged_bpf_disabled=1

ip link add eth0 type veth peer name eth0 netns outside
ip address add "$IP/24" dev eth0
ip link set eth0 up
ip route add default via "$OUTSIDE" dev eth0
for address in "$OUTSIDE" "$SILENT"; do ip -n outside address add "$address/24" dev eth0; done
ip -n outside link set eth0 up
ip -n outside route add default via "$IP"

# What containerd may start as a plugin: Cilium's beside Debian's loopback.
mkdir -p "$DIR/plugins"
ln -s "$BIN/../cilium/cilium-cni" /usr/lib/cni/loopback "$DIR/plugins/"

#!/bin/bash
# PID 1 of the node: its network, then every component, each with a log in $DIR/log.
# Needs DIR (files of the node), BIN (its programs), IP, OUTSIDE, CGROUP (its cgroup of
# version 2) and PROXY_MODE (empty: no kube-proxy). Sources network.sh, which makes the
# device with the address $IP and the network namespace "outside" with $OUTSIDE, and
# addons.sh, which starts what else the node needs.
set -eu
cd "$DIR"
mount --make-rshared /
hostname node1

# What the machine has there is none of the node's business.
for dir in /run /var/log; do mount -t tmpfs tmpfs "$dir"; done
mkdir -p /run/netns /run/containerd /var/lib/cni
mount -t tmpfs tmpfs /var/lib/cni

# own SETTING=VALUE... gives a program that wants a setting which is the machine's a
# file to read and write instead.
own() {
	local setting file
	for setting; do
		file=$DIR/sysctl-$(basename "${setting%=*}")
		echo "${setting#*=}" >"$file"
		mount --bind "$file" "/proc/sys/${setting%=*}"
	done
}
own kernel/panic=10 kernel/panic_on_oops=1 vm/overcommit_memory=1

start() {
	local name=$1
	shift
	"$@" >"$DIR/log/$name.log" 2>&1 &
	echo $! >"$DIR/pid/$name"
}

ip link set lo up
ip netns add outside
ip -n outside link set lo up
. "$DIR/network.sh"
sysctl -qw net.ipv4.ip_forward=1

start outside ip netns exec outside "$BIN/../coredns" -conf "$DIR/outside.corefile"
start etcd "$BIN/etcd" --data-dir "$DIR/etcd" --listen-client-urls http://127.0.0.1:2379 \
	--advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync
start containerd containerd -c "$DIR/containerd.toml"
pki=$DIR/pki
start kube-apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --advertise-address="$IP" \
	--secure-port=6443 --cert-dir="$pki" --tls-cert-file="$pki/api.crt" --tls-private-key-file="$pki/api.key" \
	--client-ca-file="$pki/ca.crt" --token-auth-file="$DIR/tokens.csv" --authorization-mode=Node,RBAC \
	--service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$pki/account.key" \
	--service-account-signing-key-file="$pki/account.key" --service-cluster-ip-range=10.96.0.0/16 \
	--kubelet-preferred-address-types=InternalIP --kubelet-client-certificate="$pki/kubelet-client.crt" \
	--kubelet-client-key="$pki/kubelet-client.key"
until "$BIN/kubectl" --kubeconfig "$DIR/admin.conf" get --raw /readyz >/dev/null 2>&1; do sleep 0.2; done
start kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig="$DIR/admin.conf" --leader-elect=false --cert-dir="$pki" \
	--service-account-private-key-file="$pki/account.key" --root-ca-file="$pki/ca.crt" --use-service-account-credentials \
	--allocate-node-cidrs=false --bind-address=127.0.0.1 --flex-volume-plugin-dir="$DIR/volumeplugins"
start kube-scheduler "$BIN/kube-scheduler" --kubeconfig="$DIR/admin.conf" --leader-elect=false --bind-address=127.0.0.1 \
	--authentication-kubeconfig="$DIR/admin.conf" --authorization-kubeconfig="$DIR/admin.conf"
for image in "$DIR"/images/*.tar; do
	ctr -a "$DIR/containerd.sock" -n k8s.io image import --digests --base-name "localhost/$(basename "$image" .tar)" "$image"
done >"$DIR/log/images.log" 2>&1
start kubelet "$BIN/kubelet" --config="$DIR/kubelet.yaml" --kubeconfig="$DIR/node.conf" --hostname-override=node1 --node-ip="$IP" \
	--root-dir="$DIR/kubelet" --cert-dir="$pki/kubelet"
[ -z "$PROXY_MODE" ] || start kube-proxy "$BIN/kube-proxy" --config="$DIR/proxy.yaml"
. "$DIR/addons.sh"
echo up >"$DIR/up"

# Orphans of the node are this process's children.
set +e
while :; do wait -n 2>/dev/null || sleep 1; done

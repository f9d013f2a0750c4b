# Cilium's operator and agent as processes, configured by the files in $DIR/cilium, as a
# Helm install would by a ConfigMap. Sourced by the node's PID 1.

# The agent compiles its BPF programs with the clang of its PATH.
mkdir -p "$DIR/tools"
ln -s "$(command -v clang-19)" "$DIR/tools/clang"
export K8S_NODE_NAME=node1 CILIUM_K8S_NAMESPACE=kube-system POD_NAMESPACE=kube-system \
	KUBERNETES_SERVICE_HOST=$IP KUBERNETES_SERVICE_PORT=6443 PATH=$DIR/tools:$PATH
start operator "$BIN/../cilium/cilium-operator" --config-dir="$DIR/cilium" --k8s-kubeconfig-path="$DIR/admin.conf"
until "$BIN/kubectl" --kubeconfig "$DIR/admin.conf" get customresourcedefinition ciliumnodes.cilium.io ciliumendpoints.cilium.io \
	ciliumidentities.cilium.io ciliumnetworkpolicies.cilium.io >/dev/null 2>&1; do sleep 0.2; done
start agent "$BIN/../cilium/cilium-agent" --config-dir="$DIR/cilium" --k8s-kubeconfig-path="$DIR/admin.conf"

# Debian's containerd notices a file that is written, not one that is renamed into place.
until [ -s "$DIR/cni/05-cilium.conflist" ]; do
	kill -0 "$(cat "$DIR/pid/agent")"
	sleep 0.2
done
sleep 1
plugin=$(cat "$DIR/cni/05-cilium.conflist")
echo "$plugin" >"$DIR/cni/05-cilium.conflist"

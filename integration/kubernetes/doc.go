// Package kubernetes tries what deploy/ installs on a real Kubernetes node with
// kube-proxy and Debian's bridge plugin (kubenode/). `make test-kubernetes` builds what
// is needed and runs it.
package kubernetes

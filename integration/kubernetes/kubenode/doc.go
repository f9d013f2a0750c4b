// Package kubenode makes a real Kubernetes node for a test: etcd, the API server,
// scheduler, controllers, kubelet and, if asked for, kube-proxy, built from their Go
// modules (../components), and Debian's containerd. All of it runs in namespaces of its
// own and is gone when the test is. How its pods are connected is the test's to say.
//
//	node        172.31.255.1   API server :6443; pods 10.244.0.0/24; Services 10.96.0.0/16
//	outside     172.31.255.53  what CoreDNS forwards to: bin/coredns in a namespace of its own
//
// The machine's own network, sysctls and cgroups are left alone, but for one cgroup
// of the node's pods.
package kubenode

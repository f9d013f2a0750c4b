// Package lab builds a small Kubernetes-like node out of network namespaces,
// starts real DNS servers, resolvers and dnstrace in it, and injects faults.
//
//	host's own namespace: nothing but `dnstrace run`, which sees all others
//
//	client-a   10.244.0.4  fd00:10:244::4 ─ eth0 ─┐
//	client-b   10.244.0.5  fd00:10:244::5 ─ eth0 ─┤ cni0 10.244.0.1
//	coredns    10.244.0.2  fd00:10:244::2 ─ eth0 ─┘ │    fd00:10:244::1
//	                                              node
//	                       192.168.49.2  fd00:192:168:49::2 │ eth0
//	                                                        │
//	upstream   192.168.49.10, .11, …  fd00:192:168:49::10, ::11, …
//
// The Service address 10.96.0.10 and fd00:10:96::a, port 53 UDP and TCP, is
// translated to the CoreDNS pod by the chains kube-proxy would write. Replies
// between pods cross the bridge, and br_netfilter lets connection tracking
// translate them back, as on a real node.
//
// That is the topology of the zero Config. Others carry the same messages in other ways,
// as network plugins do ([Topologies]): without a bridge, with policy routing, with a
// Service that eBPF programs translate at the socket or in packets, with responses that
// come in by another device than the query left by, through a proxy, and so on. The
// programs are in the folder datapath.
//
// Every namespace is named under /run/netns (dt<pid>-<n>-<role>, so that
// several labs can coexist and the leftovers of a killed process can be told
// and removed by the next lab). Addresses, links, routes and firewall rules
// exist only inside those namespaces; the host gets no link and no rule.
//
// Building a lab needs root and the Debian package iptables.
//
//	l := lab.New(t, lab.Config{})
//	coredns, err := l.StartCoreDNS(corefile)
//	undo, err := l.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries})
//	res, err := l.Client("client-a").Exchange(ctx, lab.Query{Name: "www.example.com."})
package lab

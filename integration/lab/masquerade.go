package lab

// MasqueradeService gives queries to the Service the node's address as their
// source on the way to the pod, as kube-proxy does with --masquerade-all, until
// undone: the server sees another client.
func (l *Lab) MasqueradeService() (undo func(), err error) {
	return l.RuleAt(Place{Node, "nat", "POSTROUTING"}, Match{Messages: Queries, Leg: ClientLeg}, "-j", "MASQUERADE")
}

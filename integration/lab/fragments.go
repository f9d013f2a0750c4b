package lab

// DropFragments makes a host drop every IPv4 fragment but the first of a
// datagram, before it puts them together, as firewalls do that look at ports,
// until undone. A host that tracks connections puts fragments together before.
func (l *Lab) DropFragments(host string) (undo func(), err error) {
	h := l.Host(host)
	rule := []string{"PREROUTING", "--fragment", "-j", "DROP"}
	if err := h.iptables("iptables", append([]string{"-t", "raw", "-I"}, rule...)...); err != nil {
		return nil, err
	}
	return l.undoOnce(func() error {
		return h.iptables("iptables", append([]string{"-t", "raw", "-D"}, rule...)...)
	}), nil
}

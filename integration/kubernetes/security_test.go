//go:build kubernetes

package kubernetes

import (
	"path/filepath"
	"strconv"
	"strings"
)

// coreDNSUser is the user and the group that CoreDNS runs as.
const coreDNSUser = "65532"

// notRoot wants CoreDNS in the pods with a label k8s-app to run as its own user, with the capability to
// bind port 53 and no other, and no way to a further one.
func (n *node) notRoot(label string) {
	n.t.Helper()
	wanted := map[string]string{
		"Uid": strings.Repeat(" "+coreDNSUser, 4), "Gid": strings.Repeat(" "+coreDNSUser, 4), "Groups": " " + coreDNSUser, "NoNewPrivs": " 1", "Seccomp": " 2",
		// CAP_NET_BIND_SERVICE is bit 10 (capabilities(7)).
		"CapInh": " 0000000000000000", "CapPrm": " 0000000000000400", "CapEff": " 0000000000000400", "CapBnd": " 0000000000000400", "CapAmb": " 0000000000000000",
	}
	pids := n.processesOf(label)
	if len(pids) == 0 {
		n.t.Fatalf("no CoreDNS in the pods of %s", label)
	}
	for _, pid := range pids {
		status, err := n.Exec("cat", filepath.Join("/proc", pid, "status"))
		if err != nil {
			n.t.Fatal(err)
		}
		seen := 0
		for line := range strings.Lines(status) {
			key, value, _ := strings.Cut(line, ":")
			want, known := wanted[key]
			if !known {
				continue
			}
			seen++
			if got := " " + strings.Join(strings.Fields(value), " "); got != want {
				n.t.Errorf("%s, process %s: %s is%s, expected%s", label, pid, key, got, want)
			}
		}
		if seen != len(wanted) {
			n.t.Errorf("%d of %d lines in %s", seen, len(wanted), status)
		}
		if out, err := n.Exec("nsenter", "-t", pid, "-n", "ss", "-H", "-l", "-n", "-u", "-t"); err != nil || strings.Count(out, "*:53 ") != 2 {
			n.t.Errorf("%v; CoreDNS listens on\n%s", err, out)
		}
	}
}

// processesOf are the processes of CoreDNS in the pods with a label k8s-app.
func (n *node) processesOf(label string) []string {
	n.t.Helper()
	uids := strings.Fields(n.Kubectl("-n", "kube-system", "get", "pods", "-l", "k8s-app="+label, "--field-selector=status.phase=Running", "-o=jsonpath={.items[*].metadata.uid}"))
	var pids []string
	for _, pid := range n.processes("coredns") {
		cgroup, err := n.Exec("cat", filepath.Join("/proc", pid, "cgroup"))
		if err != nil {
			n.t.Fatal(err)
		}
		for _, uid := range uids {
			if strings.Contains(cgroup, uid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// takenOver tries what a CoreDNS that was taken over may try with the folder of the
// node that its pod mounts: it may hand in records, and nothing else.
func (n *node) takenOver() {
	as := func(args ...string) error {
		_, err := n.Exec(append([]string{"setpriv", "--reuid=" + coreDNSUser, "--regid=" + coreDNSUser, "--clear-groups", "--no-new-privs"}, args...)...)
		return err
	}
	pod := filepath.Join(n.Bin, "images", "pod")
	const folder = "/run/dnstrace"
	if err := as(pod, "reach", "unixgram", filepath.Join(folder, "records.sock")); err != nil {
		n.t.Errorf("no way to the record socket: %v", err)
	}
	out, err := n.Exec("find", folder, "-type", "s", "!", "-name", "records.sock")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, socket := range strings.Fields(out) {
		if err := as(pod, "reach", "unix", socket); err == nil || !strings.Contains(err.Error(), "permission denied") {
			n.t.Errorf("%s is reached: %v", socket, err)
		}
	}
	for what, args := range map[string][]string{
		"makes a file":                 {"touch", filepath.Join(folder, "mine")},
		"takes the record socket away": {"rm", "-f", filepath.Join(folder, "records.sock")},
		"gives it another mode":        {"chmod", "0777", filepath.Join(folder, "records.sock")},
	} {
		if err := as(args...); err == nil {
			n.t.Errorf("who took CoreDNS over %s", what)
		}
	}
	// The pod itself mounts the folder read-only.
	for _, pid := range n.processesOf("kube-dns") {
		mounts, err := n.Exec("grep", " "+folder+" ", filepath.Join("/proc", pid, "mountinfo"))
		if err != nil || !strings.Contains(mounts, " "+folder+" ro") {
			n.t.Errorf("%v; %s", err, strconv.Quote(mounts))
		}
	}
}

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// A second tracer beside the first sees the same, also when the first one ends.
func TestTwoTracersSeeTheSame(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	first, err := r.StartTracer("--record", "exchange")
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs("../bin/dnstrace")
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(r.Dir(), "second-"+name) }
	second, err := r.Start(lab.Spec{Name: "dnstrace-second", Path: path, Ready: lab.ReadyLine("dnstrace: ready"), Env: []string{"NODE_NAME=" + lab.NodeName}, Args: []string{
		"run", "--listen", in("records.sock"), "--api", in("api.sock"), "--output", "file:" + in("records.jsonl"),
		"--record", "exchange", "--metrics", "", "--kubernetes", "off",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, "")); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		r.answered(lab.Query{Name: fmt.Sprintf("both%d.test.", i), Network: []string{"udp", "tcp"}[i%2]})
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	r.answered(lab.Query{Name: "one.test."})
	if err := second.Stop(); err != nil {
		t.Fatal(err)
	}
	sawFirst, sawSecond := seen(t, r, r.RecordFile()), seen(t, r, in("records.jsonl"))
	// Each lookup and its upstream's.
	if len(sawFirst) != 40 || len(sawSecond) != 42 {
		t.Errorf("%d and %d exchanges", len(sawFirst), len(sawSecond))
	}
	for flow, path := range sawFirst {
		if sawSecond[flow] != path {
			t.Errorf("one saw\n%s\nthe other\n%s", path, sawSecond[flow])
		}
	}
}

// seen returns where the packets of each of the lab's exchanges were seen.
func seen(t *testing.T, r *rig, file string) map[trace.Flow]string {
	t.Helper()
	ours := strings.TrimSuffix(r.Host(lab.Node).Netns, lab.Node)
	paths := map[trace.Flow]string{}
	for _, rec := range readRecords(t, file) {
		ex, ok := rec.(*trace.Exchange)
		// The second one observes the whole machine; of what was dropped at once there is no sighting.
		if !ok || ex.Path.Len() == 0 || !strings.HasPrefix(ex.Path.At(0).NetNSName, ours) {
			continue
		}
		lines := []string{fmt.Sprint(ex.QName, ex.Outcome, ex.NAT, *ex.Client, *ex.Server)}
		if ex.NAT != nil {
			lines[0] = fmt.Sprint(ex.QName, ex.Outcome, ex.NAT.ServerIP, *ex.Client, *ex.Server)
		}
		for _, s := range ex.Path.All() {
			lines = append(lines, fmt.Sprint(s.Message, s.NetNSName, s.IfName, s.Direction, s.Src, s.Dst))
		}
		paths[ex.Flow] = strings.Join(lines, "\n")
	}
	return paths
}

// A killed tracer leaves nothing in the kernel, and the next one starts.
func TestKilledTracerLeavesNothing(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	tracer, err := r.StartTracer()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	r.answered(lab.Query{Name: "before.test."})
	held := bpfObjects(t, tracer.Pid())
	if len(held) < 7 { // three programs, three links, maps
		t.Fatalf("the tracer holds %v", held)
	}
	if err := tracer.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-tracer.Exited()
	if err := tracer.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended: %v", err)
	}
	for _, o := range held {
		waitGone(t, o)
	}
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	r.answered(lab.Query{Name: "after.test."})
	if tr := r.trace("after.test."); tr.Exchange == nil || tr.Query == nil {
		t.Errorf("exchange %t, query %t", tr.Exchange != nil, tr.Query != nil)
	}
}

// bpfObject is a program, map or link of the kernel.
type bpfObject struct {
	kind string
	id   uint32
}

// bpfObjects returns what a process holds open (proc_pid_fdinfo(5)).
func bpfObjects(t *testing.T, pid int) []bpfObject {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	var found []bpfObject
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			continue // closed meanwhile
		}
		for scanner := bufio.NewScanner(f); scanner.Scan(); {
			key, value, _ := strings.Cut(scanner.Text(), ":")
			kind, isID := strings.CutSuffix(key, "_id")
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if isID && err == nil && (kind == "prog" || kind == "map" || kind == "link") {
				found = append(found, bpfObject{kind, uint32(id)})
			}
		}
		f.Close()
	}
	return found
}

// waitGone waits until the kernel has freed an object, which it does in the
// background.
func waitGone(t *testing.T, o bpfObject) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if errors.Is(open(o), os.ErrNotExist) {
			return
		}
	}
	t.Errorf("%s %d is still there: %v", o.kind, o.id, open(o))
}

func open(o bpfObject) error {
	switch o.kind {
	case "prog":
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(o.id))
		if err != nil {
			return err
		}
		return p.Close()
	case "map":
		m, err := ebpf.NewMapFromID(ebpf.MapID(o.id))
		if err != nil {
			return err
		}
		return m.Close()
	default:
		l, err := link.NewFromID(link.ID(o.id))
		if err != nil {
			return err
		}
		return l.Close()
	}
}

// Pods that live for one lookup: each is traced under its own name, though the
// kernel gives the number of one that went to one that comes.
func TestPodsComeAndGo(t *testing.T) {
	const pods = 20
	r := newRig(t)
	namespaces := map[string]*lab.Host{}
	for i := range pods {
		pod := fmt.Sprintf("short-%d", i)
		host, err := r.AddPod(pod)
		if err != nil {
			t.Fatal(err)
		}
		name := pod + ".test."
		namespaces[name] = host
		if _, err := r.Client(pod).Exchange(t.Context(), lab.Query{Name: name}); err != nil {
			t.Fatal(err)
		}
		if err := r.RemovePod(pod); err != nil {
			t.Fatal(err)
		}
	}
	numbers := map[uint32]bool{}
	for name, pod := range namespaces {
		tr := r.trace(name)
		first, last := tr.Exchange.Path.At(0), tr.Exchange.Path.At(tr.Exchange.Path.Len()-1)
		if first.NetNSName != pod.Netns || first.IfName != "eth0" {
			t.Errorf("%s: seen in %q at %q, expected %s at eth0", name, first.NetNSName, first.IfName, pod.Netns)
		}
		if last.NetNSName != pod.Netns || last.Direction != trace.DirectionRead {
			t.Errorf("%s: last %s in %q, expected read in %s", name, last.Direction, last.NetNSName, pod.Netns)
		}
		if tr.Exchange.ClientIP != pod.V4 || tr.Query == nil || len(tr.Diagnosis) != 0 {
			t.Errorf("%s: client %s, query %t, findings %v", name, tr.Exchange.ClientIP, tr.Query != nil, findings(tr))
		}
		numbers[first.NetNS] = true
	}
	t.Logf("%d pods had %d numbers", pods, len(numbers))
}

// A device that is renamed has its new name from then on.
func TestRenamedDevice(t *testing.T) {
	r := newRig(t)
	r.answered(lab.Query{Name: "old.test."})
	const newName = "renamed0"
	var oldName string
	for _, s := range r.trace("old.test.").Exchange.Path.All() {
		if s.NetNSName == r.Host(lab.Node).Netns && s.Direction == trace.DirectionRX {
			oldName = s.IfName
			break
		}
	}
	err := r.Host(lab.Node).Do(func() error {
		device, err := netlink.LinkByName(oldName)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetDown(device), netlink.LinkSetName(device, newName), netlink.LinkSetUp(device))
	})
	if err != nil {
		t.Fatalf("rename %q: %v", oldName, err)
	}
	r.answered(lab.Query{Name: "new.test.", RetransmitAfter: time.Second})
	names := map[string]bool{}
	for _, s := range r.trace("new.test.").Exchange.Path.All() {
		names[s.IfName] = true
	}
	if names[oldName] || !names[newName] {
		t.Errorf("seen at %v, expected %s and not %s", names, newName, oldName)
	}
}

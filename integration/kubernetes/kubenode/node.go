package kubenode

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

//go:embed node.sh
var nodeScript string

// Config says in what a node differs from others. In Files and Plugins, DIR stands for
// the node's folder; the scripts have it as $DIR.
type Config struct {
	// Network is a bash script that makes the device with the node's address and gives
	// the network namespace "outside" its own: $IP and $OUTSIDE.
	Network string
	// Addons is a bash script that starts what else the node needs, once the kubelet is
	// started: `start NAME COMMAND...`.
	Addons string
	// Files are more files of the node, by name: network configurations below cni/, and
	// outside.corefile for the resolver outside.
	Files map[string]string
	// Plugins is the folder of the network plugins.
	Plugins string
	// ProxyMode is kube-proxy's; empty: there is none.
	ProxyMode string
	// Env is added to the scripts' environment.
	Env []string
}

// Node is a running Kubernetes node. Its methods fail the test where they say nothing
// else.
type Node struct {
	Dir string // its files; logs below log/
	Bin string // of the repository

	t    testing.TB
	init int // PID of its PID 1
}

// Start starts a node and waits until it is ready. It goes with the test, which runs in
// a folder of integration/.
func Start(t testing.TB, c Config) *Node {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	// Short: it holds unix sockets.
	dir, err := os.MkdirTemp("", "dtk8s-")
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{t: t, Dir: dir, Bin: bin}
	t.Cleanup(func() { removeAll(t, dir) })
	makeCgroup(t)
	writeConfigs(t, dir, c)
	n.linkImages()
	n.spawn(c)
	n.waitReady()
	return n
}

// linkImages gives the node what `make test-kubernetes` built.
func (n *Node) linkImages() {
	images, err := filepath.Glob(filepath.Join(n.Bin, "images", "*.tar"))
	if err != nil || len(images) == 0 {
		n.t.Fatalf("no images in %s/images: `make test-kubernetes` builds them (%v)", n.Bin, err)
	}
	for _, image := range images {
		if err := os.Symlink(image, filepath.Join(n.Dir, "images", filepath.Base(image))); err != nil {
			n.t.Fatal(err)
		}
	}
}

// spawn starts PID 1 in namespaces of its own; its end is that of everything in them.
func (n *Node) spawn(c Config) {
	log, err := os.Create(filepath.Join(n.Dir, "log", "init.log"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	// The script comes over a pipe that is closed then: it is in no file that could go.
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc",
		"--propagation", "private", "bash", "-c", nodeScript)
	cmd.Env = append(os.Environ(), "DIR="+n.Dir, "BIN="+filepath.Join(n.Bin, "kubernetes"), "IP="+IP, "OUTSIDE="+Outside,
		"CGROUP="+filepath.Join(unified(), Cgroup), "PROXY_MODE="+c.ProxyMode)
	cmd.Env = append(cmd.Env, c.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		n.saveLogs()
		_ = cmd.Process.Kill() // it ends its child, PID 1, by --kill-child
		_ = cmd.Wait()
	})
	n.Eventually("the node has a PID 1", 20*time.Second, func() error {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if err != nil {
			return err
		}
		n.init, err = strconv.Atoi(strings.TrimSpace(string(children)))
		return err
	})
}

func (n *Node) waitReady() {
	started := time.Now()
	n.Eventually("the node is ready", 5*time.Minute, func() error {
		if _, err := os.Stat(filepath.Join(n.Dir, "up")); err != nil {
			return err
		}
		out, err := n.TryKubectl("get", "node", "node1", "--no-headers")
		if err != nil {
			return err
		}
		if fields := strings.Fields(out); len(fields) < 2 || fields[1] != "Ready" {
			return fmt.Errorf("%s", out)
		}
		_, err = n.TryKubectl("-n", "default", "get", "serviceaccount", "default")
		return err
	})
	n.t.Logf("node ready after %s", time.Since(started).Round(time.Second))
}

// saveLogs keeps the logs of the components where DNSTRACE_LOGS says, if the test
// failed.
func (n *Node) saveLogs() {
	to := os.Getenv("DNSTRACE_LOGS")
	if to == "" || !n.t.Failed() {
		return
	}
	for name, args := range map[string][]string{
		"pods":     {"get", "pods", "-A", "-o", "wide"},
		"events":   {"get", "events", "-A", "--sort-by=.lastTimestamp"},
		"tracer":   {"-n", "dnstrace", "logs", "daemonset/dnstrace"},
		"previous": {"-n", "dnstrace", "logs", "daemonset/dnstrace", "--previous"},
	} {
		out, err := n.TryKubectl(args...)
		if err != nil {
			out = err.Error()
		}
		Write(n.t, filepath.Join(n.Dir, "log", name), out)
	}
	if err := os.CopyFS(filepath.Join(to, strings.ReplaceAll(n.t.Name(), "/", "-")), os.DirFS(filepath.Join(n.Dir, "log"))); err != nil {
		n.t.Log(err)
	}
}

// removeAll removes the folder of a node that has ended: its mounts went with it.
func removeAll(t testing.TB, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("%s is left: %v", dir, err)
	}
}

// Exec runs a command inside the node and returns what it prints.
func (n *Node) Exec(args ...string) (string, error) {
	// Also when the test is over, whose context is not.
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(n.init), "-m", "-n", "-p", "-u", "-i"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// Root is the root of the node's file system, as the test's own sees it.
func (n *Node) Root() string { return fmt.Sprintf("/proc/%d/root", n.init) }

// TryKubectl runs kubectl as the cluster's administrator and returns what it prints.
func (n *Node) TryKubectl(args ...string) (string, error) {
	return n.Exec(append([]string{filepath.Join(n.Bin, "kubernetes", "kubectl"), "--kubeconfig", filepath.Join(n.Dir, "admin.conf")}, args...)...)
}

// Kubectl does so and fails the test if it fails.
func (n *Node) Kubectl(args ...string) string {
	n.t.Helper()
	out, err := n.TryKubectl(args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// Eventually waits for what others do.
func (n *Node) Eventually(what string, within time.Duration, try func() error) {
	n.t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("not within %s: %s: %v", within, what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// Pod returns the name of the only pod of a label that is ready.
func (n *Node) Pod(namespace, label string) string {
	n.t.Helper()
	var name string
	n.Eventually("one pod of "+label, time.Minute, func() error {
		out, err := n.TryKubectl("-n", namespace, "get", "pods", "-l", label, "--field-selector=status.phase=Running",
			`-o=jsonpath={range .items[?(@.status.containerStatuses[0].ready==true)]}{.metadata.name} {end}`)
		if err != nil {
			return err
		}
		names := strings.Fields(out)
		if len(names) != 1 {
			return fmt.Errorf("there are %q", names)
		}
		name = names[0]
		return nil
	})
	return name
}

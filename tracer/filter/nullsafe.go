package filter

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// patcher rewrites an expression so that null is no error and its cost is counted,
// refuses what has no bound, and notes which of the record's fields it names:
//
//	client.namespace      → client?.namespace
//	a < b, a + b          → a function that knows nil
//	any(list, condition)  → any(list ?? [], a step and condition)
//	truncated and …       → (truncated ?? false) and …
//	len(x), a matches "b" → functions that count what they go through
//	now().Format(x)       → likewise, a method
type patcher struct {
	uses map[string]bool
	err  error // the first refusal
}

// refuse notes why an expression is not taken.
func (p *patcher) refuse(n ast.Node, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("filter: column %d: %s", n.Location().From+1, fmt.Sprintf(format, args...))
	}
}

// Visit implements ast.Visitor; children come before their parents.
func (p *patcher) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if n.Value == "$env" {
			p.refuse(n, "$env: name the field itself, such as rcode")
		}
		p.uses[n.Value] = true
	case *ast.MemberNode:
		n.Optional = true
		ast.Patch(node, &ast.ChainNode{Node: n})
	case *ast.BinaryNode:
		p.binary(node, n)
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			n.Node = orFalse(n.Node)
		}
	case *ast.PredicateNode:
		n.Node = call(n, callStep, &ast.IntegerNode{Value: 1 + nodesOf(n.Node)}, orFalse(n.Node))
	case *ast.BuiltinNode:
		p.builtin(node, n)
	case *ast.CallNode: // of a method, such as now().Format("15:04")
		for i, arg := range n.Arguments {
			n.Arguments[i] = call(n, callWeighWhole, arg)
		}
		ast.Patch(node, call(n, callStep, &ast.IntegerNode{Value: stepsOfMethod}, n))
	}
}

func (p *patcher) binary(node *ast.Node, n *ast.BinaryNode) {
	switch n.Operator {
	case "and", "&&", "or", "||":
		n.Left, n.Right = orFalse(n.Left), orFalse(n.Right)
	case "matches":
		if found := p.pattern(n.Right); found != nil {
			ast.Patch(node, call(n, callMatches, n.Left, &ast.ConstantNode{Value: found}))
		}
	case "..":
		p.checkRange(n)
	case "==", "!=":
		// What is compared with a value that the expression has is no longer than that.
		if !isLiteral(n.Left) && !isLiteral(n.Right) {
			n.Left = call(n, callWeighWhole, n.Left)
		}
	default:
		if _, ok := functions[n.Operator]; ok {
			ast.Patch(node, call(n, n.Operator, n.Left, n.Right))
		}
	}
}

// call makes a call of one of our functions.
func call(at ast.Node, name string, args ...ast.Node) *ast.CallNode {
	c := &ast.CallNode{
		Callee:    &ast.IdentifierNode{Value: functionName(name)},
		Arguments: append([]ast.Node{&ast.IdentifierNode{Value: budgetName}}, args...),
	}
	c.SetLocation(at.Location())
	return c
}

// pattern compiles a regular expression, nil if it is refused.
func (p *patcher) pattern(n ast.Node) *pattern {
	s, ok := n.(*ast.StringNode)
	if !ok {
		p.refuse(n, "matches: expected a pattern in quotes, since what another costs is not known before")
		return nil
	}
	parsed, err := syntax.Parse(s.Value, syntax.Perl)
	if err != nil {
		p.refuse(n, "matches: %v", err)
		return nil
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err == nil && len(program.Inst) > maxPattern {
		err = fmt.Errorf("the pattern has %d instructions, more than %d: a shorter one, or one with smaller repetitions", len(program.Inst), maxPattern)
	}
	var compiled *regexp.Regexp
	if err == nil {
		compiled, err = regexp.Compile(s.Value)
	}
	if err != nil {
		p.refuse(n, "matches: %v", err)
		return nil
	}
	return &pattern{compiled, len(program.Inst)}
}

func (p *patcher) checkRange(n *ast.BinaryNode) {
	from, ok1 := n.Left.(*ast.IntegerNode)
	to, ok2 := n.Right.(*ast.IntegerNode)
	if !ok1 || !ok2 || to.Value-from.Value >= maxRange {
		p.refuse(n, "..: expected two numbers with at most %d between them, such as 1..5", maxRange)
	}
}

// builtin lets the functions of the language through whose cost is counted.
func (p *patcher) builtin(node *ast.Node, n *ast.BuiltinNode) {
	b, ok := builtins[n.Name]
	if !ok {
		p.refuse(n, "%s: no function of filters, since what it costs has no bound; there are %s", n.Name, builtinNames)
		return
	}
	if len(n.Arguments) == 0 {
		return
	}
	if b.list {
		n.Arguments[0] = &ast.BinaryNode{Operator: "??", Left: n.Arguments[0], Right: &ast.ArrayNode{}}
	}
	if n.Name == "trim" && len(n.Arguments) > 1 {
		p.checkCutset(n.Arguments[1])
	}
	if b.weigh != "" && !slices.ContainsFunc(n.Arguments, isCondition) { // which counts each element
		for i, arg := range n.Arguments {
			n.Arguments[i] = call(n, b.weigh, arg)
		}
	}
	if b.steps > 0 {
		ast.Patch(node, call(n, callStep, &ast.IntegerNode{Value: b.steps}, n))
	}
}

// checkCutset requires a short cutset of trim: each character of the text may be compared
// with all of it.
func (p *patcher) checkCutset(n ast.Node) {
	if s, ok := n.(*ast.StringNode); !ok || len(s.Value) > maxCutset {
		p.refuse(n, "trim: expected the characters to cut off in quotes, at most %d bytes", maxCutset)
	}
}

func isCondition(n ast.Node) bool {
	_, is := n.(*ast.PredicateNode)
	return is
}

// orFalse makes a field that is null false; other nodes keep their value, in a
// map's or a count's body for example.
func orFalse(n ast.Node) ast.Node {
	switch n.(type) {
	case *ast.ChainNode, *ast.IdentifierNode:
		return &ast.BinaryNode{Operator: "??", Left: n, Right: &ast.BoolNode{Value: false}}
	}
	return n
}

func isLiteral(n ast.Node) bool {
	switch n.(type) {
	case *ast.NilNode, *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return true
	}
	return false
}

// nodesOf returns the size of a part of the tree: about what it takes to evaluate it.
func nodesOf(n ast.Node) int {
	c := counter(0)
	ast.Walk(&n, &c)
	return int(c)
}

type counter int

// Visit implements ast.Visitor.
func (c *counter) Visit(*ast.Node) { *c++ }

// errNoBound is of an expression that the compiler itself finds too large.
var errNoBound = errors.New("filter: it is too long or too deep: ask for less")

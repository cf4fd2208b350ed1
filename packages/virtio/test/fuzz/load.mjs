// Loads TypeScript sources in this process, those of the rings with a counter on every branch. There
// is no coverage-guided fuzzer for this Node; the inspector's precise coverage costs more than the
// rings themselves, a counter costs a nanosecond.
import { readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const PACKAGE = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const INSTRUMENTED = join(PACKAGE, 'src', 'ring') + sep;

/** Counters of branches: byte `n` counts, modulo 256, how often branch `n` was taken. */
export function createCounters(length) {
  return { hits: new Uint8Array(length), used: 0 };
}

/**
 * What `entry`, a file of this package, exports. Packages that it imports are those that are
 * installed: built.
 */
export async function load(entry, counters) {
  const modules = new Map();
  const packages = new Map();
  for (const name of ['@pinhole/base', '@pinhole/memory']) packages.set(name, await import(name));

  const requireFrom = (from) => (name) => {
    if (!name.startsWith('.')) return packages.get(name);
    return evaluate(resolve(dirname(from), name.replace(/\.js$/, '.ts')));
  };
  const evaluate = (path) => {
    const known = modules.get(path);
    if (known !== undefined) return known;
    const exported = {};
    modules.set(path, exported);
    const isCounted = path.startsWith(INSTRUMENTED);
    const { outputText } = ts.transpileModule(readFileSync(path, 'utf8'), {
      fileName: path,
      compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 },
      transformers: isCounted ? { before: [countBranches(counters)] } : {},
    });
    const code = `${outputText}\n//# sourceURL=${relative(PACKAGE, path)}`;
    new Function('exports', 'require', '__hits', code)(exported, requireFrom(path), counters.hits);
    return exported;
  };
  return evaluate(resolve(PACKAGE, entry));
}

function countBranches(counters) {
  const { factory } = ts;
  const hit = () => {
    const index = factory.createNumericLiteral(counters.used++);
    const element = factory.createElementAccessExpression(
      factory.createIdentifier('__hits'),
      index,
    );
    return factory.createPostfixIncrement(element);
  };
  const statement = () => factory.createExpressionStatement(hit());
  const block = (node) =>
    factory.createBlock([statement(), ...(ts.isBlock(node) ? node.statements : [node])], true);
  const expression = (node) =>
    factory.createParenthesizedExpression(factory.createComma(hit(), node));
  const isLogical = ({ kind }) =>
    kind === ts.SyntaxKind.AmpersandAmpersandToken ||
    kind === ts.SyntaxKind.BarBarToken ||
    kind === ts.SyntaxKind.QuestionQuestionToken;

  return (context) => {
    const visit = (original) => {
      const node = ts.visitEachChild(original, visit, context);
      if (ts.isIfStatement(node)) {
        const other = node.elseStatement ?? factory.createBlock([], true);
        return factory.updateIfStatement(
          node,
          node.expression,
          block(node.thenStatement),
          block(other),
        );
      }
      if (ts.isForStatement(node)) {
        const { initializer, condition, incrementor } = node;
        return factory.updateForStatement(
          node,
          initializer,
          condition,
          incrementor,
          block(node.statement),
        );
      }
      if (ts.isForOfStatement(node)) {
        const { awaitModifier, initializer } = node;
        return factory.updateForOfStatement(
          node,
          awaitModifier,
          initializer,
          node.expression,
          block(node.statement),
        );
      }
      if (ts.isWhileStatement(node)) {
        return factory.updateWhileStatement(node, node.expression, block(node.statement));
      }
      if (ts.isConditionalExpression(node)) {
        return factory.updateConditionalExpression(
          node,
          node.condition,
          node.questionToken,
          expression(node.whenTrue),
          node.colonToken,
          expression(node.whenFalse),
        );
      }
      if (ts.isBinaryExpression(node) && isLogical(node.operatorToken)) {
        return factory.updateBinaryExpression(
          node,
          node.left,
          node.operatorToken,
          expression(node.right),
        );
      }
      if (ts.isMethodDeclaration(node) && node.body !== undefined) {
        return factory.updateMethodDeclaration(
          node,
          node.modifiers,
          node.asteriskToken,
          node.name,
          node.questionToken,
          node.typeParameters,
          node.parameters,
          node.type,
          block(node.body),
        );
      }
      return node;
    };
    return (file) => ts.visitNode(file, visit);
  };
}

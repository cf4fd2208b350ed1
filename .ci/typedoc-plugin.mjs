// Two things that typedoc does not do itself. Functions that a package exports have a docstring (its own
// check asks the same of every method). Pages of Markdown have the name of their first heading, not of their file, in the site's navigation.
import { ReflectionKind, RendererEvent } from 'typedoc';

export function load(app) {
  app.renderer.on(RendererEvent.BEGIN, ({ project }) => {
    for (const { signatures = [], name, parent } of project.getReflectionsByKind(
      ReflectionKind.Function,
    )) {
      if (signatures.some((signature) => signature.hasComment())) continue;
      app.logger.warn(`${parent.getFullName()}: the function ${name} has no docstring`);
    }
    for (const document of project.getReflectionsByKind(ReflectionKind.Document)) {
      const text = document.content.map((part) => part.text).join('');
      const title = /^# (.+)$/m.exec(text)?.[1]?.replace(/[`*]/g, '');
      // A name with / would be a folder.
      if (title !== undefined) document.name = `docs/${title.replaceAll('/', ' or ')}`;
    }
  });
}

// Pages of Markdown have the name of their first heading, not of their file, in the site's navigation.
import { ReflectionKind, RendererEvent } from 'typedoc';

export function load(app) {
  app.renderer.on(RendererEvent.BEGIN, ({ project }) => {
    for (const document of project.getReflectionsByKind(ReflectionKind.Document)) {
      const text = document.content.map((part) => part.text).join('');
      const title = /^# (.+)$/m.exec(text)?.[1]?.replace(/[`*]/g, '');
      // A name with / would be a folder.
      if (title !== undefined) document.name = `docs/${title.replaceAll('/', ' or ')}`;
    }
  });
}
